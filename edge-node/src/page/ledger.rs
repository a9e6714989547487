//! What requests took: the last seconds together, and each split point by itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cleave_shared::config::Config;
use serde::Serialize;
use tokio::sync::watch;

use crate::serve::{Durations, InferenceStats, Prediction, Statistics, Timing};

/// Percentiles are of requests that ended in this time, and of so many of them at most.
const WINDOW: Duration = Duration::from_secs(10);
const MOST: usize = 4096;
/// Requests of a split point that are kept, the newest.
const KEPT: usize = 256;

/// Notes of every request. Those of split points are of the link profile and the codec in force, and begin anew with
/// others.
pub struct Ledger {
    config: watch::Receiver<Config>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    in_flight: u64,
    answered: u64,
    failed: u64,
    recent: VecDeque<(Instant, f64)>,
    /// Link profile and codec of `splits`.
    setting: (String, String),
    splits: BTreeMap<usize, VecDeque<(f64, Timing)>>,
    totals: Totals,
}

/// Of all requests since the edge began, ms.
#[derive(Default)]
struct Totals {
    samples: u64,
    answered_ms: f64,
    failed_ms: f64,
    parts: Timing,
    last: Option<SystemTime>,
}

impl Totals {
    fn add(&mut self, answer: &Answered, ms: f64) {
        self.samples += answer.samples;
        self.answered_ms += ms;
        self.last = Some(SystemTime::now());
        self.parts += answer.timing;
    }
}

/// Totals since the edge began, and percentiles of the last seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Requests {
    pub in_flight: u64,
    pub answered: u64,
    pub failed: u64,
    /// Seconds that `latency_ms` is of.
    pub window_s: u64,
    pub latency_ms: Option<Percentiles>,
}

/// ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub count: usize,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// What requests took at one split point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtSplit {
    pub split_point: usize,
    #[serde(flatten)]
    pub latency_ms: Percentiles,
    /// Median of each part.
    pub parts: Timing,
}

impl Ledger {
    pub fn new(config: watch::Receiver<Config>) -> Self {
        Self { config, inner: Mutex::default() }
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Entry {
        self.lock().in_flight += 1;
        Entry { ledger: self.clone(), setting: self.setting(), outcome: None }
    }

    pub fn requests(&self) -> Requests {
        let mut inner = self.lock();
        inner.forget();
        let latency_ms = Percentiles::of(inner.recent.iter().map(|(_, ms)| *ms));
        let Inner { in_flight, answered, failed, .. } = *inner;
        Requests { in_flight, answered, failed, window_s: WINDOW.as_secs(), latency_ms }
    }

    /// Since the edge began, by the protocol's names.
    pub fn statistics(&self) -> Statistics {
        let inner = self.lock();
        let Inner { answered, failed, totals, .. } = &*inner;
        let ns = |ms: f64| (ms.max(0.0) * 1e6) as u64;
        let of = |count: u64, ms: f64| Durations { count, ns: ns(ms) };
        let parts = &totals.parts;
        let last = totals.last.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Statistics {
            last_inference: last.map_or(0, |at| at.as_millis() as u64),
            inference_count: totals.samples,
            execution_count: *answered,
            inference_stats: InferenceStats {
                success: of(*answered, totals.answered_ms),
                fail: of(*failed, totals.failed_ms),
                queue: of(*answered, totals.answered_ms - parts.total_ms()),
                compute_input: of(*answered, parts.encode_ms + parts.uplink_ms),
                compute_infer: of(*answered, parts.head_ms + parts.tail_ms),
                compute_output: of(*answered, parts.downlink_ms + parts.decode_ms),
            },
        }
    }

    /// In their order; those that answered nothing yet are missing.
    pub fn splits(&self) -> Vec<AtSplit> {
        let setting = self.setting();
        let mut inner = self.lock();
        inner.set(setting);
        let of = |(&split_point, kept): (&usize, &VecDeque<(f64, Timing)>)| {
            let latency_ms = Percentiles::of(kept.iter().map(|(ms, _)| *ms))?;
            Some(AtSplit { split_point, latency_ms, parts: medians(kept) })
        };
        inner.splits.iter().filter_map(of).collect()
    }

    /// Link profile and codec in force.
    fn setting(&self) -> (String, String) {
        let config = self.config.borrow();
        (config.link.profile.clone(), config.codec.activation.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self) {
        let old = |at: &Instant| at.elapsed() > WINDOW;
        while self.recent.len() > MOST || self.recent.front().is_some_and(|(at, _)| old(at)) {
            self.recent.pop_front();
        }
    }

    fn set(&mut self, setting: (String, String)) {
        if self.setting != setting {
            self.setting = setting;
            self.splits.clear();
        }
    }
}

impl Percentiles {
    /// By the nearest rank; none of nothing.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let rank = |share: f64| (share * count as f64).ceil() as usize;
        let at = |share| values.get(rank(share).saturating_sub(1)).copied();
        Some(Self { count, p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)? })
    }
}

fn medians(kept: &VecDeque<(f64, Timing)>) -> Timing {
    let of = |part: fn(&Timing) -> f64| {
        Percentiles::of(kept.iter().map(|(_, timing)| part(timing))).map_or(0.0, |p| p.p50)
    };
    Timing {
        head_ms: of(|t| t.head_ms),
        encode_ms: of(|t| t.encode_ms),
        uplink_ms: of(|t| t.uplink_ms),
        tail_ms: of(|t| t.tail_ms),
        downlink_ms: of(|t| t.downlink_ms),
        decode_ms: of(|t| t.decode_ms),
    }
}

/// A request under way. One that is left before it has ended counts as neither answered nor failed.
pub struct Entry {
    ledger: Arc<Ledger>,
    setting: (String, String),
    outcome: Option<(f64, Option<Answered>)>,
}

struct Answered {
    split_point: usize,
    samples: u64,
    timing: Timing,
}

impl Entry {
    /// It took so long; without a prediction it failed.
    pub fn ended(mut self, ms: f64, prediction: Option<&Prediction>) {
        let samples =
            |p: &Prediction| p.outputs.first().and_then(|(_, t)| t.shape().first().copied());
        let answered = prediction.map(|p| Answered {
            split_point: p.split_point,
            samples: samples(p).unwrap_or(0) as u64,
            timing: p.timing,
        });
        self.outcome = Some((ms, answered));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let setting = self.ledger.setting();
        let mut inner = self.ledger.lock();
        inner.in_flight -= 1;
        match self.outcome.take() {
            None => count("left"),
            Some((ms, None)) => {
                inner.failed += 1;
                inner.totals.failed_ms += ms;
                count("failed");
            }
            Some((ms, Some(answer))) => {
                inner.answered += 1;
                inner.totals.add(&answer, ms);
                count("answered");
                metrics::histogram!("cleave_request_duration_seconds").record(ms / 1e3);
                inner.recent.push_back((Instant::now(), ms));
                inner.forget();
                // What began on another link says nothing of this one.
                if setting == self.setting {
                    inner.set(setting);
                    let kept = inner.splits.entry(answer.split_point).or_default();
                    kept.truncate(KEPT - 1);
                    kept.push_front((ms, answer.timing));
                }
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("cleave_requests_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use cleave_shared::tensor::HostTensor;

    use super::*;

    fn prediction(split_point: usize, head_ms: f64) -> Prediction {
        let timing = Timing { head_ms, ..Timing::default() };
        Prediction { outputs: Vec::new(), timing, split_point, exits: None }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |values: &[f64]| {
            Percentiles::of(values.iter().copied()).map(|p| (p.count, p.p50, p.p95, p.p99))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0]), Some((1, 3.0, 3.0, 3.0)));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(of(&hundred), Some((100, 50.0, 95.0, 99.0)));
    }

    #[test]
    fn requests_are_counted_by_what_came_of_them() {
        let (_config, now) = watch::channel(Config::default());
        let ledger = Arc::new(Ledger::new(now));
        let (left, failed, open) = (ledger.begin(), ledger.begin(), ledger.begin());
        drop(left);
        failed.ended(5.0, None);
        for ms in [4.0, 2.0, 3.0] {
            ledger.begin().ended(ms, Some(&prediction(4, ms / 2.0)));
        }
        let Requests { in_flight, answered, failed, latency_ms, .. } = ledger.requests();
        assert_eq!((in_flight, answered, failed), (1, 3, 1));
        assert_eq!(latency_ms.map(|l| (l.count, l.p50)), Some((3, 3.0)));
        let splits = ledger.splits();
        assert_eq!((splits.len(), splits[0].split_point), (1, 4));
        assert_eq!((splits[0].latency_ms.p50, splits[0].parts.head_ms), (3.0, 1.5));
        drop(open);
        assert_eq!(ledger.requests().in_flight, 0);
    }

    #[test]
    fn another_link_begins_anew_and_takes_no_request_of_the_old_one() {
        let (config, now) = watch::channel(Config::default());
        let ledger = Arc::new(Ledger::new(now));
        ledger.begin().ended(1.0, Some(&prediction(2, 0.0)));
        let before = ledger.begin();
        config.send_modify(|config| config.link.profile = "lte".into());
        assert_eq!(ledger.splits(), []);
        before.ended(1.0, Some(&prediction(3, 0.0)));
        assert_eq!(ledger.splits(), []);
        ledger.begin().ended(9.0, Some(&prediction(4, 0.0)));
        assert_eq!(ledger.splits().len(), 1);
    }

    #[test]
    fn statistics_add_up() {
        let (_config, now) = watch::channel(Config::default());
        let ledger = Arc::new(Ledger::new(now));
        assert_eq!(ledger.statistics(), Statistics::default());
        let timing = Timing {
            head_ms: 1.0,
            encode_ms: 2.0,
            uplink_ms: 3.0,
            tail_ms: 4.0,
            ..Timing::default()
        };
        let output = HostTensor::from_f32(vec![3, 1], &[0.0; 3]);
        let outputs = vec![("logits".to_string(), output)];
        let answer = Prediction { outputs, timing, split_point: 1, exits: None };
        ledger.begin().ended(15.0, Some(&answer));
        ledger.begin().ended(15.0, Some(&answer));
        ledger.begin().ended(7.0, None);
        let Statistics { inference_count, execution_count, inference_stats: stats, last_inference } =
            ledger.statistics();
        assert_eq!((inference_count, execution_count), (6, 2));
        assert!(last_inference > 1_700_000_000_000);
        let of = |count, ms: u64| Durations { count, ns: ms * 1_000_000 };
        assert_eq!((stats.success, stats.fail), (of(2, 30), of(1, 7)));
        assert_eq!((stats.queue, stats.compute_input), (of(2, 10), of(2, 10)));
        assert_eq!((stats.compute_infer, stats.compute_output), (of(2, 10), of(2, 0)));
    }

    #[test]
    fn the_newest_are_kept() {
        let (_config, now) = watch::channel(Config::default());
        let ledger = Arc::new(Ledger::new(now));
        for ms in 0..2 * KEPT {
            ledger.begin().ended(ms as f64, Some(&prediction(1, 0.0)));
        }
        let found = ledger.splits()[0].latency_ms;
        assert_eq!((found.count, found.p50), (KEPT, (KEPT + KEPT / 2 - 1) as f64));
    }
}
