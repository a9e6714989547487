//! A path as TCP uses it: delay, rate, and the rounds of slow start, which take round trips whatever the rate.
//!
//! After a silence TCP sends its initial window (RFC 6928), waits for a round trip, sends twice as much, and so
//! on until the window fills the path (RFC 5681; what a transfer takes then: Cardwell, Savage and Anderson,
//! INFOCOM 2000). So a small transfer on a quick path tells the delay only, and on a slow path the rate.

use std::fmt;

use super::Curve;

/// Ten segments, bytes.
const INITIAL_WINDOW: f64 = 14_480.0;
/// Of a delay, and of a rate, that are learned, ms and byte/ms.
const DELAYS: (f64, f64) = (1e-3, 1e6);
const RATES: (f64, f64) = (1e-3, 1e8);
/// How much more readily a rate is believed to have changed than a delay: the variances of their logarithms.
const RATE_CHANGES: f64 = 30.0;
/// Newton's method in two logarithms: how far one step goes, and how many there are. Steps are short, since
/// shares change on the way: a transfer that took its round trips takes the rate once that has fallen.
const STRIDE: f64 = 0.1;
const STEPS: usize = 250;
const NEAR: f64 = 1e-4;

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Path {
    delay_ms: f64,
    bytes_per_ms: f64,
    /// What is sent before the first round trip.
    window: f64,
}

impl Path {
    /// After a silence.
    #[cfg(test)]
    pub fn cold(delay_ms: f64, bytes_per_ms: f64) -> Self {
        Self { delay_ms, bytes_per_ms, window: INITIAL_WINDOW }
    }

    /// What a curve says: whether its transfers began slowly is whichever explains it better.
    pub fn of(curve: &Curve) -> Self {
        let points: Vec<(f64, f64)> = curve.points().collect();
        let slope = match points[..] {
            [.., (x0, y0), (x1, y1)] => (y1 - y0) / (x1 - x0).max(f64::MIN_POSITIVE),
            _ => 0.0,
        };
        let delay_ms = curve.delay_ms().clamp(DELAYS.0, DELAYS.1);
        let bytes_per_ms = slope.recip().clamp(RATES.0, RATES.1);
        let [cold, warm] =
            [INITIAL_WINDOW, f64::INFINITY].map(|window| Self { delay_ms, bytes_per_ms, window });
        let error = |path: Self| -> f64 {
            let of = |&(bytes, ms): &(f64, f64)| (ms / path.ms(bytes as u64)).ln().abs();
            points.iter().map(of).sum()
        };
        if error(cold) < error(warm) { cold } else { warm }
    }

    /// The same after a silence.
    pub fn closed(self) -> Self {
        Self { window: self.window.min(INITIAL_WINDOW), ..self }
    }

    /// What so many bytes take.
    pub fn ms(&self, bytes: u64) -> f64 {
        let Self { delay_ms, bytes_per_ms, mut window } = *self;
        let round_trip = 2.0 * delay_ms;
        let (mut left, mut ms) = (bytes as f64, delay_ms);
        while left > window && window / bytes_per_ms < round_trip {
            ms += round_trip;
            left -= window;
            window *= 2.0;
        }
        ms + left / bytes_per_ms
    }

    /// By how many per cent the time of so many bytes grows if the delay does by one, and if the rate falls
    /// by one.
    pub fn shares(&self, bytes: u64) -> (f64, f64) {
        const LITTLE: f64 = 1e-3;
        let grown = |path: Self| (path.ms(bytes) / self.ms(bytes)).ln() / LITTLE;
        (grown(self.changed(LITTLE, 0.0)), grown(self.changed(0.0, -LITTLE)))
    }

    /// With delay and rate greater by these, in logarithms.
    fn changed(&self, delay: f64, rate: f64) -> Self {
        Self {
            delay_ms: (self.delay_ms * delay.exp()).clamp(DELAYS.0, DELAYS.1),
            bytes_per_ms: (self.bytes_per_ms * rate.exp()).clamp(RATES.0, RATES.1),
            window: self.window,
        }
    }

    /// Has at least the rate that it had then.
    pub fn recover(&mut self, then: Self) {
        self.bytes_per_ms = self.bytes_per_ms.max(then.bytes_per_ms);
    }

    /// Changes delay and rate by as little as gives so many bytes a time that is greater by this, in
    /// logarithms. Each changes by its share (normalised least mean squares).
    pub fn fit(&mut self, bytes: u64, change: f64) {
        let aim = self.ms(bytes).ln() + change;
        for _ in 0..STEPS {
            let missing = aim - self.ms(bytes).ln();
            if missing.abs() < NEAR {
                return;
            }
            let (delay, rate) = self.shares(bytes);
            let step = missing.clamp(-STRIDE, STRIDE)
                / (delay * delay + RATE_CHANGES * rate * rate).max(1e-9);
            *self = self.changed(step * delay, -step * RATE_CHANGES * rate);
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ms, {:.2} Mbit/s", self.delay_ms, self.bytes_per_ms * 8e-3)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_transfers_take_round_trips_and_large_ones_the_rate() {
        // 8 Gbit/s and 10 ms: three rounds of 14, 29 and 58 kB, and the last 8 kB.
        assert!((Path::cold(10.0, 1e6).ms(110_000) - 70.0).abs() < 0.1);
        // 0.8 Mbit/s: the first window fills the path.
        assert!((Path::cold(10.0, 100.0).ms(110_000) - 1110.0).abs() < 0.1);
    }

    #[test]
    fn a_curve_tells_whether_transfers_begin_slowly() {
        let points =
            |path: Path| (8..22).map(move |n| (f64::from(1 << n), path.ms(1 << n))).collect();
        let (slow, line) =
            (Curve::through(points(Path::cold(8.0, 18_750.0))), Curve::line(8.0, 150e6));
        assert_eq!(Path::of(&slow).window, INITIAL_WINDOW);
        assert_eq!(Path::of(&line).window, f64::INFINITY);
        for curve in [slow, line] {
            let path = Path::of(&curve);
            for bytes in [1_000, 30_000, 600_000] {
                assert!((path.ms(bytes) / curve.ms(bytes)).ln().abs() < 0.05, "{path} {bytes}");
            }
        }
    }

    proptest! {
        /// Whatever was believed, a transfer of the same size takes what it was fitted to.
        #[test]
        fn what_was_fitted_is_predicted(
            delay in 1.0f64..200.0, rate in 10.0f64..1e5, bytes in 1u64..5_000_000, change in -3.0f64..3.0,
        ) {
            let mut path = Path::cold(delay, rate);
            let aim = path.ms(bytes) * change.exp();
            path.fit(bytes, change);
            prop_assert!((path.ms(bytes) / aim).ln().abs() < 0.05, "{} {aim}", path.ms(bytes));
        }
    }
}
