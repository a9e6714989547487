//! What drives the simulated network: a clock.
//!
//! Live links run on real time: a thread sleeps to the next event and lets it happen. tokio's timers
//! would not do: they round up to a whole millisecond, and its epoll wait once more, a third of a 6 ms
//! round trip; a thread on a condition variable is late by the kernel's timer slack, about 0.05 ms.
//!
//! In tests and in what-if studies tokio's clock may be paused. Then a task drives the network on that
//! clock, which jumps from event to event: a simulated hour takes seconds. The simulation's own instants
//! stay exact; the tasks that react see tokio's whole milliseconds.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::sim::{Network, Scheduler};

/// How much too early the thread aims, ns: Linux' default timer slack (50 µs) and the hop to the woken
/// task, which would otherwise be added to every delay.
const LEAD_NS: u64 = 60_000;

/// A network and the clock it runs on; its thread or task ends when it is dropped.
#[derive(Debug)]
pub(super) struct Engine {
    shared: Arc<Shared>,
    started: OnceLock<()>,
}

#[derive(Debug)]
struct Shared {
    time: Time,
    state: Mutex<State>,
    changed: Condvar,
    notify: Notify,
}

#[derive(Debug)]
enum Time {
    Real(Instant),
    Tokio(tokio::time::Instant),
}

#[derive(Debug)]
struct State {
    network: Network,
    /// When the driver will look next, ns.
    planned: u64,
    stopped: bool,
}

impl Engine {
    /// On real time. The thread is started when it is first needed.
    pub(super) fn real(scheduler: Scheduler) -> Self {
        Self::new(scheduler, Time::Real(Instant::now()))
    }

    /// On tokio's clock, which may be paused.
    pub(super) fn tokio(scheduler: Scheduler) -> Self {
        Self::new(scheduler, Time::Tokio(tokio::time::Instant::now()))
    }

    fn new(scheduler: Scheduler, time: Time) -> Self {
        let state = State { network: Network::new(scheduler), planned: u64::MAX, stopped: false };
        let shared = Shared {
            time,
            state: Mutex::new(state),
            changed: Condvar::new(),
            notify: Notify::new(),
        };
        Self { shared: Arc::new(shared), started: OnceLock::new() }
    }

    /// Changes the network at the present instant (ns), wakes who is to be woken, and sees to it that
    /// the next event happens in time.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Network, u64) -> T) -> T {
        self.started.get_or_init(|| self.start());
        self.shared.with(change)
    }

    fn start(&self) {
        match self.shared.time {
            Time::Real(_) => {
                let shared = Arc::clone(&self.shared);
                thread::Builder::new()
                    .name("cleave-link".to_owned())
                    .spawn(move || shared.drive())
                    .expect("the system refused a thread for the link's clock");
            }
            Time::Tokio(_) => {
                tokio::spawn(drive_on_tokio(Arc::downgrade(&self.shared)));
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_one();
        self.shared.notify.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        let elapsed = match self.time {
            Time::Real(epoch) => epoch.elapsed(),
            Time::Tokio(epoch) => epoch.elapsed(),
        };
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn lead(&self) -> u64 {
        if matches!(self.time, Time::Real(_)) { LEAD_NS } else { 0 }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Network, u64) -> T) -> T {
        let mut wakes = Vec::new();
        let mut state = self.state();
        let now = self.now();
        state.network.advance(now + self.lead());
        let outcome = change(&mut state.network, now);
        state.network.advance(now + self.lead());
        state.network.take_wakes(&mut wakes);
        let next = state.network.next_event().unwrap_or(u64::MAX);
        let sooner = next < state.planned;
        if sooner {
            state.planned = next;
        }
        drop(state);
        if sooner {
            match self.time {
                Time::Real(_) => self.changed.notify_one(),
                Time::Tokio(_) => self.notify.notify_one(),
            }
        }
        wakes.into_iter().for_each(std::task::Waker::wake);
        outcome
    }

    /// The thread: sleeps to the next event and lets it happen.
    fn drive(&self) {
        let mut wakes = Vec::new();
        let mut state = self.state();
        while !state.stopped {
            let now = self.now();
            state.network.advance(now + LEAD_NS);
            state.network.take_wakes(&mut wakes);
            let next = state.network.next_event();
            state.planned = next.unwrap_or(u64::MAX);
            if !wakes.is_empty() {
                // Unlocked: waking may run code that locks again.
                drop(state);
                mem::take(&mut wakes).into_iter().for_each(std::task::Waker::wake);
                state = self.state();
                continue;
            }
            state = match next {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let wait = Duration::from_nanos(next.saturating_sub(now + LEAD_NS));
                    let woken = self.changed.wait_timeout(state, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

async fn drive_on_tokio(shared: Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let Time::Tokio(epoch) = shared.time else { return };
        // Events that are due now happen in here.
        let (next, stopped) = {
            shared.with(|_, _| {});
            let mut state = shared.state();
            let next = state.network.next_event();
            state.planned = next.unwrap_or(u64::MAX);
            (next, state.stopped)
        };
        if stopped {
            return;
        }
        let notified = shared.notify.notified();
        match next.and_then(|next| epoch.checked_add(Duration::from_nanos(next))) {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = notified => {}
            },
            None => notified.await,
        }
    }
}
