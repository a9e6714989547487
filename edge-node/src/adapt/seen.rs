//! What calls to the cloud have shown, until the adapter takes it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

/// Events that are kept; older ones are of no use.
const MOST: usize = 256;

/// One call that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Answered(Call),
    /// No answer: the cloud or the link is gone, or too slow.
    Failed,
}

/// What an answered call took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    pub split: usize,
    pub uplink_bytes: u64,
    pub uplink_ms: f64,
    pub downlink_bytes: u64,
    pub downlink_ms: f64,
    pub tail_ms: f64,
    /// Waiting for a compute thread of the cloud.
    pub queue_ms: f64,
}

/// Shared by the layer that sees and the task that learns.
#[derive(Default)]
pub struct Seen {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    events: VecDeque<Event>,
    under_way: HashMap<u64, (u64, Instant)>,
    next: u64,
    last: Option<Instant>,
}

impl Seen {
    /// A call begins that carries so many bytes; gives its number.
    pub fn begun(&self, bytes: u64) -> u64 {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.under_way.insert(id, (bytes, Instant::now()));
        inner.last = Some(Instant::now());
        id
    }

    /// It has ended; without an event if nobody waited for its end.
    pub fn ended(&self, id: u64, event: Option<Event>) {
        let mut inner = self.lock();
        inner.under_way.remove(&id);
        let Some(event) = event else { return };
        if inner.events.len() >= MOST {
            inner.events.pop_front();
        }
        inner.events.push_back(event);
        drop(inner);
        self.news.notify_one();
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Event> {
        self.lock().events.drain(..).collect()
    }

    /// Bytes of the call that has been under way for the longest time, and for how long, ms.
    pub fn oldest(&self) -> Option<(u64, f64)> {
        let inner = self.lock();
        let oldest = inner.under_way.values().min_by_key(|(_, begun)| *begun)?;
        Some((oldest.0, oldest.1.elapsed().as_secs_f64() * 1e3))
    }

    /// Since the last call began; none if there was none.
    pub fn idle(&self) -> Option<std::time::Duration> {
        self.lock().last.map(|last| last.elapsed())
    }

    /// Waits for an event.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_taken_once_and_are_bounded() {
        let seen = Seen::default();
        let (first, second) = (seen.begun(10), seen.begun(20));
        assert_eq!(seen.oldest().map(|o| o.0), Some(10));
        seen.ended(first, Some(Event::Failed));
        seen.news().await;
        assert_eq!((seen.take(), seen.take()), (vec![Event::Failed], Vec::new()));
        assert_eq!(seen.oldest().map(|o| o.0), Some(20));
        seen.ended(second, None);
        assert_eq!(seen.oldest(), None);
        for _ in 0..2 * MOST {
            seen.ended(seen.begun(1), Some(Event::Failed));
        }
        assert_eq!(seen.take().len(), MOST);
    }
}
