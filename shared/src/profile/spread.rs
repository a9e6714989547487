//! Median and spread of repeated measurements.

use serde::{Deserialize, Serialize};

/// Of a few measurements, ms.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    pub median_ms: f64,
    pub least_ms: f64,
    pub most_ms: f64,
}

impl Spread {
    /// Of these times, ms; zeros if there are none.
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        match (times.first(), times.last()) {
            (Some(&least_ms), Some(&most_ms)) => {
                Self { median_ms: times[times.len() / 2], least_ms, most_ms }
            }
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        let found = Spread::of(vec![3.0, 90.0, 1.0, 2.0, 2.0]);
        assert_eq!(found, Spread { median_ms: 2.0, least_ms: 1.0, most_ms: 90.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
