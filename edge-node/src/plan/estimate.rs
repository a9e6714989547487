//! What is known of the link, from the transfers that were seen.
//!
//! A curve says what transfers took before; what is learned is how the delay and the rate differ from it.
//! Small transfers tell the delay, large ones the rate. Each is a moving average (EWMA) that is given up at
//! once when what comes in cannot be chance: a cumulative sum (CUSUM: Page, Biometrika 1954) of the logarithm
//! of measured over predicted.

use std::fmt;

use super::{Curve, Network};

/// Weight of a new value in the moving average.
const GAIN: f64 = 0.25;
/// A cumulative sum forgets this much of each value, and calls it a change above the threshold: one
/// transfer that takes 2.2 times as long as predicted, or three that take 1.5 times as long.
const DRIFT: f64 = 0.1;
const CHANGE: f64 = 0.7;
/// A rate is never thought to be more than this much better or worse than the curve's.
const FACTORS: (f64, f64) = (1e-4, 1e4);
/// Nothing takes less than this, so that a logarithm can be taken.
const LEAST_MS: f64 = 1e-3;
/// Newton's method on a convex function of two logarithms: it is there after a few.
const STEPS: usize = 6;

/// One transfer, in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    pub bytes: u64,
    pub ms: f64,
}

/// Both directions.
#[derive(Debug, Clone)]
pub struct Estimate {
    up: Way,
    down: Way,
}

impl Estimate {
    /// Begins with what is believed before anything was seen.
    pub fn new(network: Network) -> Self {
        Self { up: Way::new(network.up), down: Way::new(network.down) }
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
        seen.ms > 2.0 * self.up.predict(seen.bytes) && self.up.observe(seen)
    }

    /// What transfers take now.
    pub fn network(&self) -> Network {
        Network { up: self.up.curve(), down: self.down.curve() }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { up, down } = self;
        write!(f, "up {:.1} ms × {:.3}, ", up.delay_ms, up.factor)?;
        write!(f, "down {:.1} ms × {:.3}", down.delay_ms, down.factor)
    }
}

#[derive(Debug, Clone)]
struct Way {
    before: Curve,
    delay_ms: f64,
    /// Of what a transfer takes beside the delay.
    factor: f64,
    slower: f64,
    quicker: f64,
}

impl Way {
    fn new(before: Curve) -> Self {
        Self {
            delay_ms: before.delay_ms().max(LEAST_MS),
            before,
            factor: 1.0,
            slower: 0.0,
            quicker: 0.0,
        }
    }

    /// What the bytes themselves took, before.
    fn body_ms(&self, bytes: u64) -> f64 {
        (self.before.ms(bytes) - self.before.delay_ms()).max(0.0)
    }

    fn predict(&self, bytes: u64) -> f64 {
        self.delay_ms + self.factor * self.body_ms(bytes)
    }

    fn curve(&self) -> Curve {
        let of = |(bytes, _)| (bytes, self.predict(bytes as u64));
        Curve::through(self.before.points().map(of).collect())
    }

    fn observe(&mut self, seen: Observation) -> bool {
        if !(seen.ms.is_finite() && seen.ms > 0.0) {
            return false;
        }
        let predicted = self.predict(seen.bytes).max(LEAST_MS);
        let surprise = (seen.ms / predicted).ln();
        self.slower = (self.slower + surprise - DRIFT).max(0.0);
        self.quicker = (self.quicker - surprise - DRIFT).max(0.0);
        let changed = self.slower > CHANGE || self.quicker > CHANGE;
        if changed {
            (self.slower, self.quicker) = (0.0, 0.0);
        }
        self.learn(seen, if changed { 1.0 } else { GAIN });
        changed
    }

    /// Delay and factor each change by their share of the whole, in the logarithm (normalised least mean
    /// squares), so that a small transfer teaches the delay, a large one the rate, and one between both.
    fn learn(&mut self, seen: Observation, gain: f64) {
        let body = self.body_ms(seen.bytes);
        let aim = self.predict(seen.bytes).max(LEAST_MS).powf(1.0 - gain) * seen.ms.powf(gain);
        for _ in 0..STEPS {
            let predicted = self.predict(seen.bytes).max(LEAST_MS);
            let missing = (aim / predicted).ln();
            let of_body = self.factor * body / predicted;
            let of_delay = 1.0 - of_body;
            let step = missing / (of_body.powi(2) + of_delay.powi(2));
            self.delay_ms = (self.delay_ms * (step * of_delay).exp()).max(LEAST_MS);
            self.factor = (self.factor * (step * of_body).exp()).clamp(FACTORS.0, FACTORS.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn estimate() -> Estimate {
        Estimate::new(Network { up: Curve::line(10.0, 8e6), down: Curve::line(10.0, 8e6) })
    }

    /// A link with this delay and ms for each kB.
    fn took(bytes: u64, delay: f64, per_kb: f64) -> Observation {
        Observation { bytes, ms: delay + per_kb * bytes as f64 / 1e3 }
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
        assert!(!estimate.overdue(Observation { bytes: 100_000, ms: 150.0 }));
        assert!(estimate.overdue(Observation { bytes: 100_000, ms: 400.0 }));
        assert!(estimate.network().up.ms(100_000) > 350.0);
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
            let changed = estimate.uplink(Observation { bytes: 1000, ms });
            prop_assert!(!changed);
            prop_assert!((estimate.network().up.ms(1000) - 11.0).abs() < 0.01);
        }
    }
}
