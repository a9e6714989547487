//! What is known of the link, from the transfers that were seen.
//!
//! A curve says what transfers took before; what is learned is how delay and rate differ from then. Both
//! are moving averages (EWMA) that are given up at once when what comes in cannot be chance: a cumulative
//! sum (CUSUM: Page, Biometrika 1954) of the logarithm of measured over predicted.

use std::fmt;

use super::{Curve, Network, path::Path};

/// Weight of a new value in the moving average.
const GAIN: f64 = 0.25;
/// A cumulative sum forgets this much of each value, and calls it a change above the threshold: one
/// transfer that takes 2.2 times as long as predicted, or three that take 1.5 times as long.
const DRIFT: f64 = 0.1;
const CHANGE: f64 = 0.7;
/// Nothing takes less than this, so that a logarithm can be taken.
const LEAST_MS: f64 = 1e-3;
/// How many smaller transfers a large one is not contradicted by, and how often two are fitted in turn.
const RECENT: u8 = 3;
const TURNS: usize = 8;
/// A transfer tells the rate if at least this share of it is due to the rate.
const TELLING: f64 = 0.3;

/// One transfer, in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    pub bytes: u64,
    pub ms: f64,
    /// Whether it found TCP's window closed, since nothing had crossed for a while.
    pub fresh: bool,
}

impl Observation {
    pub fn new(bytes: u64, ms: f64) -> Self {
        Self { bytes, ms, fresh: false }
    }
}

/// Both directions.
#[derive(Debug, Clone)]
pub struct Estimate {
    up: Way,
    down: Way,
}

impl Estimate {
    /// Begins with what is believed before anything was seen; `closed`: whether that is of transfers that find TCP's
    /// window closed.
    pub fn new(network: Network, closed: bool) -> Self {
        Self { up: Way::new(network.up, closed), down: Way::new(network.down, closed) }
    }

    /// Learns from a transfer; whether it was a change.
    pub fn uplink(&mut self, seen: Observation) -> bool {
        self.up.observe(seen)
    }

    /// Learns from a transfer; whether it was a change.
    pub fn downlink(&mut self, seen: Observation) -> bool {
        self.down.observe(seen)
    }

    /// An exchange that is not answered yet has taken at least this long: if that is already more than
    /// predicted, it is learned now.
    pub fn overdue(&mut self, seen: Observation) -> bool {
        let seen = self.up.as_usual(seen);
        // Of a transfer that has not ended nothing is known to be so.
        let known = (self.up.largest, self.up.recent, self.up.late);
        let late = seen.ms > 2.0 * self.up.predict(seen.bytes) && self.up.observe(seen);
        let nothing = (0, None, Some(seen.bytes));
        (self.up.largest, self.up.recent, self.up.late) = if late { nothing } else { known };
        late
    }

    /// Bytes of the largest transfer up that has ended since the last change.
    pub fn largest_uplink(&self) -> u64 {
        self.up.largest
    }

    /// What so many bytes down take now.
    pub fn downlink_ms(&self, bytes: u64) -> f64 {
        self.down.predict(bytes)
    }

    /// What transfers take now.
    pub fn network(&self) -> Network {
        Network { up: self.up.curve(), down: self.down.curve() }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up {}, down {}", self.up.now, self.down.now)
    }
}

#[derive(Debug, Clone)]
struct Way {
    /// Measured, or simulated, before anything was learned.
    before: Curve,
    /// Of transfers that find TCP's window closed.
    closed: bool,
    /// What that curve says of delay and rate.
    first: Path,
    now: Path,
    /// Bytes of the largest transfer since the last change.
    largest: u64,
    /// A large transfer, and how many smaller ones may still follow it.
    recent: Option<(Observation, u8)>,
    /// Bytes of a transfer that was late before it had ended: a part of it crossed before the link changed, so its time
    /// is of neither.
    late: Option<u64>,
    slower: f64,
    quicker: f64,
}

impl Way {
    fn new(before: Curve, closed: bool) -> Self {
        let first = Path::of(&before);
        let largest = before.points().last().map_or(0, |(bytes, _)| bytes as u64);
        let (recent, late) = (None, None);
        let (slower, quicker) = (0.0, 0.0);
        Self { before, closed, first, now: first, largest, recent, late, slower, quicker }
    }

    /// The curve, by as much as the path has changed since.
    fn predict(&self, bytes: u64) -> f64 {
        let ms = self.before.ms(bytes) * self.now.ms(bytes) / self.first.ms(bytes);
        ms.max(LEAST_MS)
    }

    fn curve(&self) -> Curve {
        let of = |(bytes, _)| (bytes, self.predict(bytes as u64));
        Curve::through(self.before.points().map(of).collect())
    }

    /// What a transfer would have taken that found TCP's window as those did that the curve is of.
    fn as_usual(&self, seen: Observation) -> Observation {
        let Observation { bytes, ms, fresh } = seen;
        let extra = match fresh && !self.closed {
            true => self.now.closed().ms(bytes) / self.now.ms(bytes),
            false => 1.0,
        };
        Observation::new(bytes, ms / extra)
    }

    fn observe(&mut self, seen: Observation) -> bool {
        let seen = self.as_usual(seen);
        if !(seen.ms.is_finite() && seen.ms > 0.0) {
            return false;
        }
        let surprise = (seen.ms / self.predict(seen.bytes)).ln();
        self.slower = (self.slower + surprise - DRIFT).max(0.0);
        self.quicker = (self.quicker - surprise - DRIFT).max(0.0);
        let (worse, better) = (self.slower > CHANGE, self.quicker > CHANGE);
        let larger = self.recent.filter(|(large, _)| large.bytes > seen.bytes);
        if worse || better {
            (self.slower, self.quicker) = (0.0, 0.0);
        }
        match larger {
            Some((large, _)) if better => self.fit_both(seen, large),
            _ if worse || better => self.change(seen, better),
            _ => self.fit(seen, GAIN),
        }
        if self.late == Some(seen.bytes) {
            self.late = None;
            return worse || better;
        }
        self.largest = self.largest.max(seen.bytes);
        let still = larger.filter(|(_, follow)| *follow > 0 && !worse);
        self.recent = Some(still.map_or((seen, RECENT), |(large, follow)| (large, follow - 1)));
        worse || better
    }

    /// Moves so far towards what this transfer took.
    fn fit(&mut self, seen: Observation, gain: f64) {
        self.now.fit(seen.bytes, gain * (seen.ms / self.predict(seen.bytes)).ln());
    }

    /// What was believed is given up.
    fn change(&mut self, seen: Observation, better: bool) {
        self.largest = 0;
        if better && self.is_as_at_first(seen) {
            self.now.recover(self.first);
        }
        self.fit(seen, 1.0);
    }

    /// A small transfer was quicker than predicted, just after a large one: it is the delay that was wrong, and a
    /// higher rate would not have taken the large one as long.
    fn fit_both(&mut self, small: Observation, large: Observation) {
        for _ in 0..TURNS {
            self.fit(small, 1.0);
            self.fit(large, 1.0);
        }
    }

    /// Whether a transfer that the rate matters to took no longer than at first. How much quicker the path
    /// is than that a small one cannot tell; that it is as quick as it was is the best guess.
    fn is_as_at_first(&self, seen: Observation) -> bool {
        let as_before = (seen.ms / self.before.ms(seen.bytes).max(LEAST_MS)).ln() < 0.5 * CHANGE;
        as_before && self.now.shares(seen.bytes).1 > TELLING
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn estimate() -> Estimate {
        let line = || Curve::line(10.0, 8e6);
        Estimate::new(Network { up: line(), down: line() }, false)
    }

    /// A link with this delay and ms for each kB.
    fn took(bytes: u64, delay: f64, per_kb: f64) -> Observation {
        Observation::new(bytes, delay + per_kb * bytes as f64 / 1e3)
    }

    #[test]
    fn a_tenfold_drop_is_seen_at_the_first_transfer() {
        let mut estimate = estimate();
        for _ in 0..20 {
            assert!(!estimate.uplink(took(100_000, 10.0, 1.0)));
        }
        assert!(estimate.uplink(took(100_000, 10.0, 10.0)));
        let found = estimate.network().up.ms(100_000);
        assert!((found - 1010.0).abs() < 1.0, "{found}");
        // The answer's way was not seen.
        assert!((estimate.network().down.ms(100_000) - 110.0).abs() < 1.0);
        assert!(estimate.uplink(took(100_000, 10.0, 1.0)));
        assert!((estimate.network().up.ms(200_000) - 210.0).abs() < 5.0);
    }

    #[test]
    fn what_takes_too_long_is_learned_before_it_ends() {
        let mut estimate = estimate();
        assert!(!estimate.overdue(Observation::new(100_000, 150.0)));
        assert!(estimate.overdue(Observation::new(100_000, 400.0)));
        assert!(estimate.network().up.ms(100_000) > 350.0);
        assert_eq!(estimate.largest_uplink(), 0);
        estimate.overdue(Observation::new(100_000, 900.0));
        assert_eq!(estimate.largest_uplink(), 0);
        estimate.uplink(Observation::new(100_000, 950.0));
        assert_eq!(estimate.largest_uplink(), 0);
        estimate.uplink(Observation::new(1_000, 20.0));
        assert_eq!(estimate.largest_uplink(), 1_000);
    }

    #[test]
    fn a_window_that_was_closed_is_no_change_of_the_link() {
        let mut estimate = estimate();
        // 10 ms and 8 Mbit/s: the first 14 kB fill half of the round trip.
        let closed = Observation { bytes: 100_000, ms: 120.0, fresh: true };
        let before = estimate.network().up.ms(100_000);
        assert!(!estimate.overdue(Observation { ms: 230.0, ..closed }));
        for _ in 0..20 {
            assert!(!estimate.uplink(closed));
        }
        let after = estimate.network().up.ms(100_000);
        assert!((after / before).ln().abs() < 0.1, "{before} {after}");
    }

    #[test]
    fn small_probes_tell_of_a_blockage_and_of_its_end() {
        let (sight, blocked) = (Path::cold(8.0, 18_750.0), Path::cold(12.0, 500.0));
        let points = (8..21).map(|n| (f64::from(1 << n), sight.ms(1 << n))).collect();
        let curve = Curve::through(points);
        let mut estimate = Estimate::new(Network { up: curve.clone(), down: curve }, true);
        let took = |path: Path, bytes| Observation::new(bytes, path.ms(bytes));
        let is = |estimate: &Estimate, path: Path| {
            for bytes in [180_000, 588_000] {
                let (found, real) = (estimate.network().up.ms(bytes), path.ms(bytes));
                assert!((found / real).ln().abs() < 0.4, "{estimate}: {bytes}: {found}, {real}");
            }
        };
        for _ in 0..10 {
            assert!(!estimate.uplink(took(sight, 588_000)));
        }
        assert!(estimate.overdue(Observation::new(588_000, 300.0)));
        // The first waits behind what is left in the queue.
        estimate.uplink(Observation::new(32_768, 700.0));
        for _ in 0..3 {
            estimate.uplink(took(blocked, 32_768));
        }
        is(&estimate, blocked);
        assert!(estimate.uplink(took(sight, 32_768)));
        is(&estimate, sight);
    }

    #[test]
    fn a_small_transfer_does_not_contradict_a_large_one_just_before() {
        let path = Path::cold(8.0, 18_750.0);
        let points = (8..21).map(|n| (f64::from(1 << n), path.ms(1 << n))).collect();
        let curve = Curve::through(points);
        let mut estimate = Estimate::new(Network { up: curve.clone(), down: curve }, true);
        let slow = Path::cold(30.0, 5_000.0);
        for _ in 0..5 {
            estimate.uplink(Observation::new(32_768, slow.ms(32_768)));
        }
        estimate.uplink(Observation::new(588_000, 60.0));
        assert!(estimate.uplink(Observation::new(32_768, 7.0)));
        let found = [588_000, 32_768].map(|bytes| estimate.network().up.ms(bytes));
        assert!((50.0..70.0).contains(&found[0]), "{found:?}");
        assert!((6.0..10.0).contains(&found[1]), "{found:?}");
    }

    proptest! {
        /// Whatever the link becomes, within noise, small and large transfers teach it.
        #[test]
        fn it_learns_a_new_delay_and_a_new_rate(
            delay in 1.0f64..100.0, per_kb in 0.05f64..20.0,
            noise in prop::collection::vec(0.93f64..1.07, 120),
        ) {
            let mut estimate = estimate();
            for (i, noise) in noise.into_iter().enumerate() {
                let bytes = if i % 3 == 0 { 100 } else { 200_000 };
                let seen = took(bytes, delay, per_kb);
                estimate.uplink(Observation { ms: seen.ms * noise, ..seen });
            }
            let network = estimate.network();
            for bytes in [100, 50_000, 200_000, 1_000_000] {
                let (found, real) = (network.up.ms(bytes), took(bytes, delay, per_kb).ms);
                prop_assert!((found / real).ln().abs() < 0.5, "{bytes}: {found} {real}");
            }
        }

        /// Chance alone is no change.
        #[test]
        fn a_steady_link_does_not_change(noise in prop::collection::vec(0.9f64..1.1, 200)) {
            let mut estimate = estimate();
            for noise in noise {
                let seen = took(100_000, 10.0, 1.0);
                let changed = estimate.uplink(Observation { ms: seen.ms * noise, ..seen });
                prop_assert!(!changed);
            }
        }

        #[test]
        fn nonsense_is_not_learned(ms in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -5.0f64..=0.0]) {
            let mut estimate = estimate();
            let changed = estimate.uplink(Observation::new(1000, ms));
            prop_assert!(!changed);
            prop_assert!((estimate.network().up.ms(1000) - 11.0).abs() < 0.01);
        }
    }
}
