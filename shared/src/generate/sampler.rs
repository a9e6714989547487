//! How the next token is chosen from the logits: a pure function of logits, settings and draw.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::loss::argmax;

/// The settings of a draw: temperature, then the `top_k` likeliest, then the fewest of those that hold
/// `top_p` of the probability ("nucleus sampling", Holtzman et al. 2020), in Hugging Face's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// What logits are divided by; 0 takes the likeliest token.
    pub temperature: f32,
    /// How many tokens may be drawn; 0 is all.
    pub top_k: usize,
    /// Probability that the tokens which may be drawn hold together, over 0 and up to 1 (all).
    pub top_p: f32,
    pub seed: u64,
}

/// One token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    pub id: usize,
    /// Natural logarithm of the probability that the model gave it, settings left aside.
    pub logprob: f32,
}

/// Why no token could be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    #[error("{key} = {value} is out of range; allowed: {allowed}")]
    Setting { key: &'static str, value: f32, allowed: &'static str },
    #[error("the model's logits are not numbers; check its weights")]
    Logits,
}

impl Sampler {
    /// The likeliest token each time.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    /// Refuses settings that mean nothing.
    pub fn check(&self) -> Result<(), SampleError> {
        let Self { temperature, top_p, .. } = *self;
        if !(0.0..=100.0).contains(&temperature) {
            let (key, allowed) = ("temperature", "0 to 100");
            return Err(SampleError::Setting { key, value: temperature, allowed });
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            let (key, allowed) = ("top_p", "over 0, up to 1");
            return Err(SampleError::Setting { key, value: top_p, allowed });
        }
        Ok(())
    }

    /// The token of draw number `draw` of a sequence.
    pub fn choose(&self, logits: &[f32], draw: u64) -> Result<Choice, SampleError> {
        self.check()?;
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if logits.iter().any(|l| l.is_nan()) || !greatest.is_finite() {
            return Err(SampleError::Logits);
        }
        let id = match self.temperature {
            0.0 => argmax(logits),
            _ => self.draw(logits, greatest, draw),
        };
        let exponentials = logits.iter().map(|l| f64::from(l - greatest).exp());
        let log_sum = exponentials.sum::<f64>().ln();
        Ok(Choice { id, logprob: (f64::from(logits[id] - greatest) - log_sum) as f32 })
    }

    fn draw(&self, logits: &[f32], greatest: f32, draw: u64) -> usize {
        let weight = |id: usize| {
            let weight = (f64::from(logits[id] - greatest) / f64::from(self.temperature)).exp();
            (id, weight)
        };
        let mut open: Vec<(usize, f64)> = (0..logits.len()).map(weight).collect();
        // The likelier first, the earlier id of equals.
        let order = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if self.top_k > 0 && self.top_k < open.len() {
            open.select_nth_unstable_by(self.top_k - 1, order);
            open.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            open.sort_unstable_by(order);
            let most = f64::from(self.top_p) * open.iter().map(|o| o.1).sum::<f64>();
            let mut held = 0.0;
            // The one that crosses the line is in, so that there always is one.
            let mut before = |o: &(usize, f64)| {
                let open = held < most;
                held += o.1;
                open
            };
            let count = open.iter().take_while(|o| before(o)).count();
            open.truncate(count.max(1));
        }
        // In the order of ids, so that the draw does not depend on how they were selected.
        open.sort_unstable_by_key(|o| o.0);
        let mut left = uniform(self.seed, draw) * open.iter().map(|o| o.1).sum::<f64>();
        for &(id, weight) in &open {
            if left < weight {
                return id;
            }
            left -= weight;
        }
        // Rounding may leave a crumb behind the last one.
        open.iter().rev().find(|o| o.1 > 0.0).map_or(0, |o| o.0)
    }
}

/// A number in 0..1 that depends on seed and draw only.
fn uniform(seed: u64, draw: u64) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(draw);
    rng.random_range(0.0..1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-20.0f32..20.0, 1..60)
    }

    proptest! {
        #[test]
        fn what_is_drawn_is_among_what_may_be(
            logits in logits(), temperature in 0.1f32..3.0, top_k in 0usize..8,
            top_p in 0.01f32..1.0, seed: u64, draw in 0u64..1000,
        ) {
            let sampler = Sampler { temperature, top_k, top_p, seed };
            let choice = sampler.choose(&logits, draw).unwrap();
            prop_assert_eq!(sampler.choose(&logits, draw).unwrap(), choice);
            let likelier = logits.iter().filter(|l| **l > logits[choice.id]);
            let likelier: Vec<f64> = likelier.map(|l| f64::from(*l)).collect();
            prop_assert!(top_k == 0 || likelier.len() < top_k);
            // The likelier ones alone do not hold top_p of what top_k left.
            let weight = |l: f64| (l / f64::from(temperature)).exp();
            let mut all: Vec<f64> = logits.iter().map(|l| weight(f64::from(*l))).collect();
            all.sort_by(|a, b| b.total_cmp(a));
            all.truncate(if top_k == 0 { all.len() } else { top_k });
            let held: f64 = likelier.into_iter().map(weight).sum();
            prop_assert!(held / all.iter().sum::<f64>() <= f64::from(top_p) + 1e-6);
            prop_assert!(choice.logprob <= 1e-6);
        }

        #[test]
        fn cold_and_narrow_draws_are_greedy(logits in logits(), seed: u64) {
            let greedy = Sampler::GREEDY.choose(&logits, 0).unwrap();
            let value = logits[greedy.id];
            prop_assert!(logits.iter().all(|l| *l <= value));
            for sampler in [
                Sampler { temperature: 1.0, top_k: 1, top_p: 1.0, seed },
                Sampler { temperature: 1.0, top_k: 0, top_p: 1e-9, seed },
            ] {
                prop_assert_eq!(logits[sampler.choose(&logits, 3).unwrap().id], value);
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, 2f32.ln(), 5f32.ln(), f32::NEG_INFINITY];
        let sampler = Sampler { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 5 };
        let mut counts = [0u32; 4];
        for draw in 0..8000 {
            counts[sampler.choose(&logits, draw).unwrap().id] += 1;
        }
        // 1/8, 2/8, 5/8 of 8000; five standard deviations are under 220.
        for (count, expected) in counts.into_iter().zip([1000u32, 2000, 5000, 0]) {
            assert!(count.abs_diff(expected) < 220 && (expected > 0 || count == 0), "{counts:?}");
        }
        let choice = sampler.choose(&logits, 0).unwrap();
        let probability = [0.125f32, 0.25, 0.625][choice.id];
        assert!((choice.logprob - probability.ln()).abs() < 1e-6);
    }

    #[test]
    fn nonsense_is_refused() {
        let sampler = Sampler { temperature: -1.0, ..Sampler::GREEDY };
        let text = sampler.choose(&[1.0], 0).unwrap_err().to_string();
        assert_eq!(text, "temperature = -1 is out of range; allowed: 0 to 100");
        assert!(Sampler { top_p: 0.0, ..Sampler::GREEDY }.check().is_err());
        assert!(Sampler { top_p: f32::NAN, ..Sampler::GREEDY }.check().is_err());
        for bad in [&[1.0, f32::NAN][..], &[f32::INFINITY], &[]] {
            assert_eq!(Sampler::GREEDY.choose(bad, 0), Err(SampleError::Logits));
        }
    }
}
