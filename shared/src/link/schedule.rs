//! When each byte of one direction is through: arithmetic only, no I/O, no clock.
//!
//! Instants are nanoseconds on whatever clock the caller keeps. Every deadline is
//! absolute, so a caller that wakes late is late once, and never slows the link.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::profile::Direction;

/// Nanobits in a byte: dividing by bit/s gives ns.
const NANOBITS_PER_BYTE: u128 = 8_000_000_000;
/// Where the normal distribution of the jitter is cut off, in standard deviations.
const JITTER_CUT: f64 = 3.0;

/// The fate of one chunk, so that its sender knows when to offer the next one and
/// its carrier when to hand it over. All in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The chunk's first bit enters the link.
    pub starts: u64,
    /// Its last bit has entered the link, which is then free.
    pub sent: u64,
    /// Its last bit comes out at the other end.
    pub arrives: u64,
}

/// The one resource that all connections of a radio compete for in one direction.
///
/// A chunk waits until the link is free, occupies it for bytes × 8 / rate, travels
/// for the delay plus its jitter, and arrives no earlier than any chunk before it.
#[derive(Debug)]
pub struct Schedule {
    rate_bps: u64,
    delay_ns: u64,
    jitter_ns: f64,
    busy_until: u64,
    /// The part of a nanosecond (in 1/rate) still owed, so that rounding never adds up.
    carry: u128,
    last_arrival: u64,
    rng: StdRng,
}

impl Schedule {
    /// An idle direction; equal seeds draw equal jitter.
    pub fn new(direction: &Direction, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let idle = Self {
            rate_bps: 0,
            delay_ns: 0,
            jitter_ns: 0.0,
            busy_until: 0,
            carry: 0,
            last_arrival: 0,
            rng,
        };
        let mut schedule = idle;
        schedule.set_direction(direction);
        schedule
    }

    /// Changes the network from the next chunk on; chunks under way keep their slots.
    pub fn set_direction(&mut self, direction: &Direction) {
        self.rate_bps = direction.rate_bps;
        // The casts saturate: negative or NaN becomes 0.
        self.delay_ns = (direction.delay_ms * 1e6) as u64;
        self.jitter_ns = (direction.jitter_ms * 1e6).max(0.0);
        self.carry = 0;
    }

    /// Books the link for `bytes` that were ready at `ready` ns.
    ///
    /// `ready` may lie in the past: the link then starts when it was last free, but
    /// never before `ready`, as if the caller had been on time.
    pub fn send(&mut self, ready: u64, bytes: usize) -> Slot {
        if ready > self.busy_until {
            self.carry = 0;
        }
        let starts = ready.max(self.busy_until);
        let sent = starts.saturating_add(self.airtime(bytes));
        let arrives = sent.saturating_add(self.travel()).max(self.last_arrival);
        self.busy_until = sent;
        self.last_arrival = arrives;
        Slot { starts, sent, arrives }
    }

    /// How long `bytes` occupy the link, ns.
    fn airtime(&mut self, bytes: usize) -> u64 {
        if self.rate_bps == 0 {
            return 0;
        }
        let rate = u128::from(self.rate_bps);
        let work = bytes as u128 * NANOBITS_PER_BYTE + self.carry;
        self.carry = work % rate;
        u64::try_from(work / rate).unwrap_or(u64::MAX)
    }

    /// Delay plus jitter, ns: symmetric around the delay, never negative.
    fn travel(&mut self) -> u64 {
        let delay = self.delay_ns as f64;
        let cut = (JITTER_CUT * self.jitter_ns).min(delay);
        if cut <= 0.0 {
            return self.delay_ns;
        }
        // A valid profile (jitter <= delay) keeps two draws in three or more.
        for _ in 0..16 {
            let offset = self.standard_normal() * self.jitter_ns;
            if offset.abs() <= cut {
                return (delay + offset) as u64;
            }
        }
        self.delay_ns
    }

    /// One draw by Box and Muller's method.
    fn standard_normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.rng.random::<f64>()).cos()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn direction(rate_bps: u64, delay_ms: f64, jitter_ms: f64) -> Direction {
        Direction { rate_bps, delay_ms, jitter_ms }
    }

    #[test]
    fn a_chunk_takes_its_airtime_and_the_delay() {
        let mut schedule = Schedule::new(&direction(8_000_000, 10.0, 0.0), 1);
        let first = schedule.send(5_000, 1_000);
        assert_eq!(first, Slot { starts: 5_000, sent: 1_005_000, arrives: 11_005_000 });
        assert_eq!(schedule.send(0, 1).starts, 1_005_000, "the link was busy until then");
        assert_eq!(schedule.send(9_000_000, 0).sent, 9_000_000);
    }

    #[test]
    fn rounding_does_not_add_up() {
        let mut schedule = Schedule::new(&direction(3_000_000_007, 0.0, 0.0), 1);
        let last = (0..1_000_000).map(|_| schedule.send(0, 1).sent).last();
        assert_eq!(last, Some((1_000_000 * NANOBITS_PER_BYTE / 3_000_000_007) as u64));
    }

    #[test]
    fn jitter_has_zero_mean_its_deviation_and_its_seed() {
        let lte = direction(0, 25.0, 4.0);
        let delays = |seed| -> Vec<f64> {
            let mut schedule = Schedule::new(&lte, seed);
            let gap = 1_000_000_000; // far enough apart that order never holds one back
            (1..=20_000)
                .map(|i| (schedule.send(i * gap, 1).arrives - i * gap) as f64 / 1e6)
                .collect()
        };
        let drawn = delays(7);
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let variance = drawn.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        assert!((mean - 25.0).abs() < 0.15, "mean {mean} ms");
        assert!((variance.sqrt() - 4.0).abs() < 0.15, "deviation {} ms", variance.sqrt());
        assert!(drawn.iter().all(|d| (13.0..=37.0).contains(d)));
        assert_eq!(drawn, delays(7));
        assert_ne!(drawn, delays(8));
    }

    #[test]
    fn an_unchecked_direction_cannot_hang_it() {
        let mut schedule = Schedule::new(&direction(1, f64::NAN, f64::INFINITY), 1);
        assert_eq!(schedule.send(0, 1).arrives, 8_000_000_000);
        schedule.set_direction(&direction(1, 1.0, 1e300));
        assert!(schedule.send(0, usize::MAX).arrives > 0);
    }

    proptest! {
        /// Whatever is offered, by however many connections: what was booked is in
        /// order, does not overlap, and is exactly what the rate allows.
        #[test]
        fn orderly_and_never_faster_than_the_rate(
            rate in prop_oneof![Just(0u64), 1_000..=10_000_000_000u64],
            delay_us in 0..50_000u32,
            jitter_share in 0.0..1.0f64,
            seed: u64,
            offers in prop::collection::vec((0..20_000_000u64, 0..16_385usize), 1..200),
        ) {
            let delay_ms = f64::from(delay_us) / 1e3;
            let shape = direction(rate, delay_ms, delay_ms * jitter_share);
            let mut schedule = Schedule::new(&shape, seed);
            let (mut now, mut sent_bytes, mut previous) = (0, 0u128, None::<Slot>);
            let mut busy_ns = 0u128;
            for (gap, bytes) in offers {
                now += gap;
                let slot = schedule.send(now, bytes);
                prop_assert!(slot.starts >= now && slot.sent >= slot.starts);
                prop_assert!(slot.arrives >= slot.sent);
                if let Some(previous) = previous {
                    prop_assert!(slot.starts >= previous.sent);
                    prop_assert!(slot.arrives >= previous.arrives);
                }
                sent_bytes += bytes as u128;
                busy_ns += u128::from(slot.sent - slot.starts);
                // No byte too many by `sent` (to 1 ns of rounding) ...
                if rate != 0 {
                    let allowed = u128::from(rate) * u128::from(slot.sent + 1);
                    prop_assert!(sent_bytes * NANOBITS_PER_BYTE <= allowed);
                }
                previous = Some(slot);
            }
            // ... and none lost: the link was busy for exactly the bytes offered, to
            // 1 ns for each time it fell idle.
            let nanobits = sent_bytes * NANOBITS_PER_BYTE;
            let ideal_ns = nanobits.checked_div(u128::from(rate)).unwrap_or(0);
            prop_assert!(busy_ns <= ideal_ns + 1 && busy_ns + 200 >= ideal_ns);
        }
    }
}
