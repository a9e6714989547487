//! A cell, and the radios of the edges in it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    counters::{LinkCounters, Meter},
    engine::Engine,
    profile::Profile,
    sim::{DeviceId, DeviceStatus, Scheduler},
    stream::LinkStream,
};

/// Stands for one base station: all edges that join share its uplink and its downlink. An edge that
/// is idle costs a few kilobytes and no thread. Clones are the same cell.
#[derive(Clone, Debug)]
pub struct Cell {
    engine: Arc<Engine>,
}

impl Cell {
    /// On real time.
    pub fn new(scheduler: Scheduler) -> Self {
        Self { engine: Arc::new(Engine::real(scheduler)) }
    }

    /// On tokio's clock, which jumps when it is paused. Must be used within that runtime, and with
    /// streams that live in memory: a socket's bytes take no virtual time.
    pub fn in_virtual_time(scheduler: Scheduler) -> Self {
        Self { engine: Arc::new(Engine::tokio(scheduler)) }
    }

    /// The radio of an edge. The profile says what it has when it is alone in the cell: its rates are
    /// its share of the airtime times these. Equal seeds draw equal jitter, errors and outages.
    pub fn join(&self, profile: Profile, seed: u64) -> Link {
        let device = self.engine.with(|network, _| network.add_device(&profile, seed));
        let radio = Radio {
            engine: Arc::clone(&self.engine),
            device,
            meter: Meter::default(),
            ideal: AtomicBool::new(profile.is_ideal()),
            profile: Mutex::new(profile),
        };
        Link { radio: Arc::new(radio) }
    }
}

/// Stands for the radio of one edge: however many connections are made through it, they share its
/// uplink and its downlink. Clones are the same radio.
#[derive(Clone, Debug)]
pub struct Link {
    radio: Arc<Radio>,
}

impl Link {
    /// A radio that has a cell for itself, on real time.
    pub fn new(profile: Profile, seed: u64) -> Link {
        Cell::new(Scheduler::default()).join(profile, seed)
    }

    /// The network it is on.
    pub fn profile(&self) -> Profile {
        self.radio.profile.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Moves the radio to another network while it is running. Packets under way keep their instants;
    /// all later ones, on open connections too, get the new ones. The transport of a connection stays
    /// what it was when it was opened.
    pub fn set_profile(&self, profile: Profile) {
        let mut current = self.radio.profile.lock().unwrap_or_else(PoisonError::into_inner);
        let device = self.radio.device;
        self.radio.engine.with(|network, now| network.set_profile(device, &profile, now));
        self.radio.ideal.store(profile.is_ideal(), Ordering::Release);
        *current = profile;
    }

    /// What it has carried so far.
    pub fn counters(&self) -> LinkCounters {
        let status = self.status();
        self.radio.meter.counters(status.uplink, status.downlink)
    }

    /// What it is like now: rates, queues, round trip.
    pub fn status(&self) -> DeviceStatus {
        let device = self.radio.device;
        self.radio.engine.with(|network, now| network.status(device, now))
    }

    /// Puts the radio between the caller and `io`, a connection to the cloud.
    ///
    /// On a network that is not ideal this spawns two tasks, so it must be called within a tokio
    /// runtime.
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
    pub(super) engine: Arc<Engine>,
    pub(super) device: DeviceId,
    pub(super) meter: Meter,
    profile: Mutex<Profile>,
    /// Whether the profile is ideal: read on every poll of a direct stream.
    ideal: AtomicBool,
}

impl Radio {
    pub(super) fn is_ideal(&self) -> bool {
        self.ideal.load(Ordering::Acquire)
    }
}

impl Drop for Radio {
    fn drop(&mut self) {
        self.engine.with(|network, _| network.remove_device(self.device));
    }
}
