//! Seeded random numbers that are the same on every machine and in every release of `rand`:
//! ChaCha's words, turned into numbers here.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One stream of draws. Each part of the model has its own, so that a change to one part
/// leaves the draws of the others alone.
#[derive(Debug)]
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// In [0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Mean 0, variance 1 (Box and Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }

    /// The next value of a unit-variance first-order autoregressive process.
    pub(super) fn correlated(&mut self, last: f64, correlation: f64) -> f64 {
        correlation * last + (1.0 - correlation * correlation).sqrt() * self.normal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut draws = Draws::new(7, 0);
        let n = 100_000;
        let mean = |draw: &mut dyn FnMut() -> f64| (0..n).map(|_| draw()).sum::<f64>() / n as f64;
        assert!((mean(&mut || draws.uniform()) - 0.5).abs() < 0.01);
        assert!((mean(&mut || draws.exponential(3.0)) - 3.0).abs() < 0.05);
        assert!((mean(&mut || draws.normal().powi(2)) - 1.0).abs() < 0.02);
        let mut x = 0.0;
        let lagged = mean(&mut || {
            let last = x;
            x = draws.correlated(x, 0.8);
            x * last
        });
        assert!((lagged - 0.8).abs() < 0.03, "{lagged}");
    }

    #[test]
    fn streams_differ_and_seeds_repeat() {
        let first = |seed, stream| Draws::new(seed, stream).uniform();
        assert_eq!(first(1, 0), first(1, 0));
        assert_ne!(first(1, 0), first(1, 1));
        assert_ne!(first(1, 0), first(2, 0));
    }
}
