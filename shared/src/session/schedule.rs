//! The learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

/// How the optimiser's learning rate changes: it rises linearly from 0 over the first steps, then follows
/// its shape down to a floor at the last step. As `transformers.get_*_schedule_with_warmup`: step `n` uses
/// the value at `n - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    pub kind: Shape,
    /// Steps of the rise.
    pub warmup_steps: u64,
    /// What the rate ends at, as a share of the optimiser's.
    pub floor: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Stays as it is.
    #[default]
    Constant,
    Linear,
    /// Half a period (Loshchilov & Hutter 2017).
    Cosine,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { kind: Shape::Constant, warmup_steps: 0, floor: 0.0 }
    }
}

impl Schedule {
    /// What step `step` (from 1) of `total` multiplies the optimiser's rate by.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let at = step.saturating_sub(1);
        if at < self.warmup_steps {
            return at as f64 / self.warmup_steps as f64;
        }
        let rest = total.saturating_sub(self.warmup_steps).max(1);
        let progress = ((at - self.warmup_steps) as f64 / rest as f64).min(1.0);
        let height = match self.kind {
            Shape::Constant => return 1.0,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.floor + (1.0 - self.floor) * height
    }

    /// Whether the steps' rates depend on how many there are.
    pub fn depends_on_total(&self) -> bool {
        self.kind != Shape::Constant
    }

    /// The key and the problem of a constant out of range.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match (0.0..=1.0).contains(&self.floor) {
            true => Ok(()),
            false => Err(("floor", format!("{} is out of range; allowed: 0 to 1", self.floor))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        let cosine = Schedule { kind: Shape::Cosine, warmup_steps: 10, floor: 0.1 };
        let at = |step| cosine.factor(step, 110);
        assert_eq!((at(1), at(6), at(11)), (0.0, 0.5, 1.0));
        assert!((at(61) - 0.55).abs() < 1e-12);
        assert!(at(110) < 0.101 && at(200) == 0.1);
        let linear = Schedule { kind: Shape::Linear, warmup_steps: 0, floor: 0.0 };
        assert_eq!((linear.factor(1, 4), linear.factor(3, 4)), (1.0, 0.5));
        let constant = Schedule { warmup_steps: 2, ..Schedule::default() };
        assert_eq!([1, 2, 3, 99].map(|s| constant.factor(s, 4)), [0.0, 0.5, 1.0, 1.0]);
    }
}
