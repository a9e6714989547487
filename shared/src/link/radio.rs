//! One edge's radio: what all its connections share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};

use super::clock::Clock;
use super::counters::{LinkCounters, Meter};
use super::profile::{Direction, Profile};
use super::schedule::{Schedule, Slot};
use super::stream::LinkStream;

/// Distinguishes the downlink's jitter from the uplink's under the same seed.
const DOWNLINK_SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// Stands for the radio of one edge: however many connections are made through
/// it, they share its uplink and its downlink. Clones are the same radio.
#[derive(Clone, Debug)]
pub struct Link {
    radio: Arc<Radio>,
}

impl Link {
    /// A radio on that network. Equal seeds draw equal jitter.
    ///
    /// The profile is taken as it is; see [`Profile::validate`].
    pub fn new(profile: Profile, seed: u64) -> Link {
        let radio = Radio {
            uplink: Lane::new(&profile.uplink, seed),
            downlink: Lane::new(&profile.downlink, seed ^ DOWNLINK_SEED),
            meter: Meter::default(),
            ideal: AtomicBool::new(profile.is_ideal()),
            profile: Mutex::new(profile),
            clock: OnceLock::new(),
        };
        Link { radio: Arc::new(radio) }
    }

    /// The network it is on.
    pub fn profile(&self) -> Profile {
        self.radio.profile.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Moves the radio to another network while it is running. Bytes under way keep
    /// their instants; all later ones, on open connections too, get the new ones.
    pub fn set_profile(&self, profile: Profile) {
        let mut current = self.radio.profile.lock().unwrap_or_else(PoisonError::into_inner);
        self.radio.uplink.set_direction(&profile.uplink);
        self.radio.downlink.set_direction(&profile.downlink);
        self.radio.ideal.store(profile.is_ideal(), Ordering::Release);
        *current = profile;
    }

    /// What it has carried so far.
    pub fn counters(&self) -> LinkCounters {
        self.radio.meter.snapshot()
    }

    /// Puts the radio between the caller and `io`, a connection to the cloud.
    ///
    /// On a network that is not ideal this spawns two tasks, so it must be called
    /// within a tokio runtime.
    pub fn shape<S>(&self, io: S) -> LinkStream<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        LinkStream::new(io, Arc::clone(&self.radio))
    }
}

/// What [`Link`] and its streams have in common.
#[derive(Debug)]
pub(super) struct Radio {
    pub(super) uplink: Lane,
    pub(super) downlink: Lane,
    pub(super) meter: Meter,
    profile: Mutex<Profile>,
    /// Whether the profile is ideal: read on every poll of a direct stream.
    ideal: AtomicBool,
    /// Started by the first stream that needs it.
    clock: OnceLock<Clock>,
}

impl Radio {
    pub(super) fn is_ideal(&self) -> bool {
        self.ideal.load(Ordering::Acquire)
    }

    pub(super) fn clock(&self) -> &Clock {
        self.clock.get_or_init(Clock::start)
    }
}

/// One direction of the radio, shared by the pumps of all connections.
#[derive(Debug)]
pub(super) struct Lane {
    schedule: Mutex<Schedule>,
    capacity: AtomicUsize,
}

impl Lane {
    fn new(direction: &Direction, seed: u64) -> Self {
        let schedule = Mutex::new(Schedule::new(direction, seed));
        Self { schedule, capacity: AtomicUsize::new(direction.queue_bytes()) }
    }

    fn set_direction(&self, direction: &Direction) {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner).set_direction(direction);
        self.capacity.store(direction.queue_bytes(), Ordering::Relaxed);
    }

    /// Bytes a connection may have in flight in this direction.
    pub(super) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// See [`Schedule::send`].
    pub(super) fn send(&self, ready: u64, bytes: usize) -> Slot {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner).send(ready, bytes)
    }
}
