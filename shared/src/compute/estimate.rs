//! What something takes, judged by what it took before.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Mean and deviation, smoothed as TCP does it for round trips (Jacobson, 1988; RFC 6298).
#[derive(Debug, Default)]
pub struct Estimate(Mutex<Option<Smoothed>>);

/// s
#[derive(Debug, Clone, Copy)]
struct Smoothed {
    mean: f64,
    deviation: f64,
}

impl Estimate {
    pub fn observe(&self, took: Duration) {
        let took = took.as_secs_f64();
        let mut smoothed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *smoothed = Some(match *smoothed {
            None => Smoothed { mean: took, deviation: took / 2.0 },
            Some(Smoothed { mean, deviation }) => Smoothed {
                mean: mean + (took - mean) / 8.0,
                deviation: deviation + ((took - mean).abs() - deviation) / 4.0,
            },
        });
    }

    /// What it seldom exceeds; zero before the first.
    pub fn upper(&self) -> Duration {
        let smoothed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        smoothed.map_or(Duration::ZERO, |s| {
            Duration::try_from_secs_f64(s.mean + 4.0 * s.deviation).unwrap_or(Duration::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_times_are_trusted_and_varied_ones_less() {
        let ms = Duration::from_millis;
        let estimate = Estimate::default();
        assert_eq!(estimate.upper(), Duration::ZERO);
        estimate.observe(ms(10));
        assert_eq!(estimate.upper(), ms(30));
        (0..50).for_each(|_| estimate.observe(ms(10)));
        assert!(estimate.upper() >= ms(10) && estimate.upper() < ms(11), "{:?}", estimate.upper());
        estimate.observe(ms(40));
        assert!(estimate.upper() > ms(40), "{:?}", estimate.upper());
    }
}
