//! What calls to the cloud have shown, until the adapter takes it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use cleave_shared::config::WINDOW_CLOSES;
use tokio::sync::Notify;

/// Events of either kind that are kept; older ones are of no use.
const MOST: usize = 256;

/// One call that has ended, or what the edge did itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Answered(Call),
    /// No answer: the cloud or the link is gone, or too slow.
    Failed,
    /// Nobody waits for it any more.
    Left(UnderWay),
    /// The edge has done its part of a request.
    Computed(HeadRun),
}

/// What the head of one request took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadRun {
    pub split: usize,
    pub ms: f64,
    /// Bytes of the model's output for this request: whether it was as large as those that are planned for.
    pub output_bytes: u64,
}

/// What an answered call took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    pub split: usize,
    pub uplink_bytes: u64,
    /// Whether it was the first after a silence.
    pub fresh: bool,
    pub uplink_ms: f64,
    pub downlink_bytes: u64,
    pub downlink_ms: f64,
    /// Bytes of the model's output for this request, as [`HeadRun::output_bytes`].
    pub output_bytes: u64,
    pub tail_ms: f64,
    /// Waiting for a compute thread of the cloud.
    pub queue_ms: f64,
}

/// One call that has not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnderWay {
    pub split: usize,
    pub uplink_bytes: u64,
    /// Since it began.
    pub ms: f64,
    /// Whether it was the first after a silence.
    pub fresh: bool,
}

/// Shared by the layer that sees and the task that learns.
#[derive(Default)]
pub struct Seen {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    /// What came of calls.
    events: VecDeque<Event>,
    /// What heads took: apart, so that they push no call out.
    heads: VecDeque<Event>,
    under_way: HashMap<u64, Begun>,
    next: u64,
    last: Option<Instant>,
    /// When the last one ended.
    quiet: Option<Instant>,
}

/// As the newest of not too many.
fn keep(events: &mut VecDeque<Event>, event: Event) {
    if events.len() >= MOST {
        events.pop_front();
    }
    events.push_back(event);
}

#[derive(Clone, Copy)]
struct Begun {
    split: usize,
    uplink_bytes: u64,
    at: Instant,
    fresh: bool,
}

impl Begun {
    fn under_way(self) -> UnderWay {
        let Begun { split, uplink_bytes, at, fresh } = self;
        UnderWay { split, uplink_bytes, ms: at.elapsed().as_secs_f64() * 1e3, fresh }
    }
}

impl Seen {
    /// A call begins that carries so many bytes from this cut; gives its number, and whether it is the first
    /// after a silence.
    pub fn begun(&self, split: usize, uplink_bytes: u64) -> (u64, bool) {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        let at = Instant::now();
        let silent = inner.quiet.is_none_or(|quiet| at - quiet >= WINDOW_CLOSES);
        let fresh = silent && inner.under_way.is_empty();
        inner.under_way.insert(id, Begun { split, uplink_bytes, at, fresh });
        inner.last = Some(at);
        (id, fresh)
    }

    /// It has ended; without a call's outcome if nobody waited for its end.
    pub fn ended(&self, id: u64, outcome: Option<Event>) {
        let mut inner = self.lock();
        inner.quiet = Some(Instant::now());
        let left = inner.under_way.remove(&id).map(|begun| Event::Left(begun.under_way()));
        let Some(event) = outcome.or(left) else { return };
        keep(&mut inner.events, event);
        drop(inner);
        self.news.notify_one();
    }

    /// The head of a request was run.
    pub fn computed(&self, run: HeadRun) {
        keep(&mut self.lock().heads, Event::Computed(run));
        self.news.notify_one();
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Event> {
        let Inner { events, heads, .. } = &mut *self.lock();
        heads.drain(..).chain(events.drain(..)).collect()
    }

    /// The call that has been under way for the longest time.
    pub fn oldest(&self) -> Option<UnderWay> {
        let oldest = self.lock().under_way.values().min_by_key(|begun| begun.at).copied();
        oldest.map(Begun::under_way)
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
        let ((first, fresh), (second, follows)) = (seen.begun(1, 10), seen.begun(2, 20));
        assert!(fresh && !follows);
        assert_eq!(seen.oldest().map(|o| (o.split, o.uplink_bytes)), Some((1, 10)));
        seen.ended(first, Some(Event::Failed));
        seen.news().await;
        assert_eq!((seen.take(), seen.take()), (vec![Event::Failed], Vec::new()));
        assert_eq!(seen.oldest().map(|o| o.uplink_bytes), Some(20));
        seen.ended(second, None);
        assert_eq!(seen.oldest(), None);
        let left = seen.take();
        assert!(matches!(left[..], [Event::Left(UnderWay { split: 2, uplink_bytes: 20, .. })]));
        for _ in 0..2 * MOST {
            seen.ended(seen.begun(0, 1).0, Some(Event::Failed));
        }
        let run = HeadRun { split: 1, ms: 1.0, output_bytes: 40 };
        for _ in 0..2 * MOST {
            seen.computed(run);
        }
        let kept = seen.take();
        assert_eq!(kept[..MOST], [Event::Computed(run); MOST]);
        assert_eq!(kept[MOST..], [Event::Failed; MOST]);
    }
}
