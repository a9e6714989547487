//! The link's time base, and wake-ups finer than tokio's.
//!
//! tokio rounds every timer up to a whole millisecond, and its epoll wait once
//! more: up to 2 ms late each way, a third of a 6 ms round trip. A thread on a
//! condition variable is late by the kernel's timer slack, about 0.05 ms.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// How much too early the thread aims, ns: Linux' default timer slack (50 µs) and
/// the hop to the woken task, which would otherwise be added to every delay.
const LEAD_NS: u64 = 60_000;

/// Virtual time of a link (ns since its start) and the thread that wakes its
/// streams; the thread ends when the clock is dropped.
#[derive(Debug)]
pub(super) struct Clock {
    epoch: Instant,
    shared: Arc<Shared>,
}

impl Clock {
    /// Starts the thread. Panics, as [`std::thread::spawn`] does, if the system
    /// refuses to make one.
    pub(super) fn start() -> Self {
        let epoch = Instant::now();
        let shared = Arc::new(Shared::default());
        let ringing = Arc::clone(&shared);
        thread::Builder::new()
            .name("cleave-link".to_owned())
            .spawn(move || ringing.run(epoch))
            .expect("the system refused a thread for the link's clock");
        Self { epoch, shared }
    }

    /// ns since the start.
    pub(super) fn now(&self) -> u64 {
        nanos_since(self.epoch)
    }

    /// Whether that instant has come (or is so close that waiting would overshoot).
    pub(super) fn is_due(&self, at: u64) -> bool {
        self.now() + LEAD_NS >= at
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.alarms().stopped = true;
        self.shared.changed.notify_one();
    }
}

/// One task's place on the clock, so that polling again does not queue it again.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    bell: Arc<Bell>,
    /// When the queued entry rings, if that is still to come.
    armed: u64,
}

impl Alarm {
    /// Ready once `at` (ns) is due; until then the task is woken no later than that.
    pub(super) fn poll(&mut self, cx: &Context<'_>, clock: &Clock, at: u64) -> Poll<()> {
        // The waker is in place before the time is read: a bell that rang before
        // had an `armed` that is past now, and is queued anew.
        self.bell.set(cx.waker());
        let now = clock.now();
        let target = at.saturating_sub(LEAD_NS);
        if target <= now {
            return Poll::Ready(());
        }
        if self.armed <= now || self.armed > target {
            self.armed = target;
            clock.shared.enqueue(Entry { at: target, bell: Arc::clone(&self.bell) });
        }
        Poll::Pending
    }
}

/// Where the thread finds the latest waker of an [`Alarm`].
#[derive(Debug, Default)]
struct Bell(Mutex<Option<Waker>>);

impl Bell {
    fn set(&self, waker: &Waker) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    fn ring(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A queued wake-up; the heap's greatest is the earliest.
#[derive(Debug)]
struct Entry {
    at: u64,
    bell: Arc<Bell>,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

/// What the thread and the streams have in common.
#[derive(Debug, Default)]
struct Shared {
    alarms: Mutex<Alarms>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Alarms {
    entries: BinaryHeap<Entry>,
    stopped: bool,
}

impl Alarms {
    fn pop_due(&mut self, now: u64) -> Option<Entry> {
        if self.entries.peek()?.at <= now { self.entries.pop() } else { None }
    }
}

impl Shared {
    fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, entry: Entry) {
        let mut alarms = self.alarms();
        let sooner = alarms.entries.peek().is_none_or(|first| entry.at < first.at);
        alarms.entries.push(entry);
        drop(alarms);
        if sooner {
            self.changed.notify_one();
        }
    }

    /// The thread: sleeps to the earliest entry and rings everything due.
    fn run(&self, epoch: Instant) {
        let mut due = Vec::new();
        let mut alarms = self.alarms();
        while !alarms.stopped {
            let now = nanos_since(epoch);
            while let Some(entry) = alarms.pop_due(now) {
                due.push(entry);
            }
            if !due.is_empty() {
                // Bells ring unlocked: waking may run code that locks again.
                drop(alarms);
                due.drain(..).for_each(|entry| entry.bell.ring());
                alarms = self.alarms();
                continue;
            }
            let wait = alarms.entries.peek().map(|first| Duration::from_nanos(first.at - now));
            alarms = match wait {
                None => self.changed.wait(alarms).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let woken = self.changed.wait_timeout(alarms, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

fn nanos_since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
