//! CUBIC (RFC 9438) as Linux 6.1 computes it (net/ipv4/tcp_cubic.c): in whole segments, on the clock's
//! ticks of 1 ms.

use super::NS_PER_TICK;

/// The window after a loss, in parts of [`SCALE`], and the curve's steepness (0.4) by the same measure.
const BETA: u64 = 717;
const SCALE: u64 = 1024;
const STEEPNESS: u64 = 41;
/// The curve's time is in 1/1024 s.
const TIME_BITS: u32 = 10;
const TICKS_PER_S: u64 = 1000;
/// Acknowledged segments, in eighths of the window, for each segment that Reno would add.
const RENO_EIGHTHS: u64 = 8 * (SCALE + BETA) / 3 / (SCALE - BETA);
/// Before the first loss the window grows by at least 1/20 a round trip, and never faster than by half.
const FIRST_EPOCH_ACKS: u64 = 20;
const LEAST_ACKS: u64 = 2;
/// The same window is not computed anew for so many ticks.
const PATIENCE: u64 = TICKS_PER_S / 32;

/// How fast the window grows beyond slow start.
#[derive(Debug, Default)]
pub(super) struct Cubic {
    /// The window at the last loss, segments; none before it.
    last_max: u64,
    epoch: Option<Epoch>,
    /// The window and the tick of the last computation.
    last: (u64, u64),
    /// So many acknowledged segments open the window by one; and how many were counted so far.
    acks_per_segment: u64,
    counted: u64,
}

/// Since the last loss, or since slow start.
#[derive(Debug)]
struct Epoch {
    start: u64,
    /// When the curve is back at its origin, 1/1024 s; and the window there.
    k: u64,
    origin: u64,
    /// What Reno would have by now (CUBIC is never slower), and acknowledged segments towards its next.
    reno: u64,
    acked: u64,
}

impl Cubic {
    /// The window after `acked` more segments.
    pub(super) fn grown(&mut self, cwnd: u64, acked: u64, least_rtt: u64, now: u64) -> u64 {
        self.update(cwnd, acked, least_rtt, now / NS_PER_TICK);
        let mut grown = cwnd;
        // Counted at a slower pace: applied gently.
        if self.counted >= self.acks_per_segment {
            self.counted = 0;
            grown += 1;
        }
        self.counted += acked;
        grown += self.counted / self.acks_per_segment;
        self.counted %= self.acks_per_segment;
        grown
    }

    /// bictcp_update().
    fn update(&mut self, cwnd: u64, acked: u64, least_rtt: u64, tick: u64) {
        if let Some(epoch) = &mut self.epoch {
            epoch.acked += acked;
        }
        let (last_cwnd, last_tick) = self.last;
        if last_cwnd == cwnd && tick - last_tick <= PATIENCE {
            return;
        }
        if self.epoch.is_none() || tick != last_tick {
            self.last = (cwnd, tick);
            self.follow_curve(cwnd, acked, least_rtt, tick);
        }
        if let Some(epoch) = &mut self.epoch {
            let step = ((cwnd * RENO_EIGHTHS) >> 3).max(1);
            epoch.reno += epoch.acked / step;
            epoch.acked %= step;
            if epoch.reno > cwnd {
                self.acks_per_segment = self.acks_per_segment.min(cwnd / (epoch.reno - cwnd));
            }
        }
        self.acks_per_segment = self.acks_per_segment.max(LEAST_ACKS);
    }

    fn follow_curve(&mut self, cwnd: u64, acked: u64, least_rtt: u64, tick: u64) {
        let last_max = self.last_max;
        let epoch = self.epoch.get_or_insert_with(|| {
            let origin = cwnd.max(last_max);
            let cubed = (1 << (TIME_BITS + 3 * TIME_BITS)) / (STEEPNESS * 10) * (origin - cwnd);
            Epoch { start: tick, k: (cubed as f64).cbrt() as u64, origin, reno: cwnd, acked }
        });
        let ticks = tick.saturating_sub(epoch.start) + least_rtt.div_ceil(NS_PER_TICK);
        let t = (ticks << TIME_BITS) / TICKS_PER_S;
        let cubed = u128::from(t.abs_diff(epoch.k)).pow(3) * u128::from(STEEPNESS * 10);
        let offset = u64::try_from(cubed >> (TIME_BITS + 3 * TIME_BITS)).unwrap_or(u64::MAX);
        let target = if t < epoch.k {
            epoch.origin.saturating_sub(offset)
        } else {
            epoch.origin.saturating_add(offset)
        };
        self.acks_per_segment = if target > cwnd { cwnd / (target - cwnd) } else { 100 * cwnd };
        if last_max == 0 {
            self.acks_per_segment = self.acks_per_segment.min(FIRST_EPOCH_ACKS);
        }
    }

    /// A loss: the window from here on.
    pub(super) fn reduced(&mut self, cwnd: u64) -> u64 {
        (self.epoch, self.counted) = (None, 0);
        // Who had to give way before has come to its new share: it leaves room for others.
        self.last_max =
            if cwnd < self.last_max { cwnd * (SCALE + BETA) / (2 * SCALE) } else { cwnd };
        (cwnd * BETA / SCALE).max(2)
    }

    /// Nothing was sent for so long: the curve stood still.
    pub(super) fn stood_still(&mut self, idle: u64, now: u64) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start = (epoch.start + idle / NS_PER_TICK).min(now / NS_PER_TICK);
        }
    }

    /// Whether `now` is within the first second since the last loss or since slow start.
    pub(super) fn is_fresh(&self, now: u64) -> bool {
        self.epoch.as_ref().is_some_and(|epoch| now / NS_PER_TICK < epoch.start + TICKS_PER_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Grows from `cwnd` for `ms`, with a full window acknowledged in each round trip of 50 ms, in twos.
    fn grow(cubic: &mut Cubic, mut cwnd: u64, ms: u64) -> u64 {
        let mut now = 1_000 * MS;
        let end = now + ms * MS;
        while now < end {
            cwnd = cubic.grown(cwnd, 2, 50 * MS, now);
            now += 100 * MS / cwnd;
        }
        cwnd
    }

    #[test]
    fn comes_back_to_the_window_of_the_loss_and_goes_beyond() {
        let mut cubic = Cubic::default();
        let reduced = cubic.reduced(400);
        assert_eq!(reduced, 400 * 717 / 1024);
        // RFC 9438 section 4.2: K = cbrt(W_max (1 - beta) / C), 6.7 s.
        let k_ms = ((120.0_f64 / 0.4).cbrt() * 1e3) as u64;
        let back = grow(&mut cubic, reduced, k_ms);
        assert!((380..=410).contains(&back), "{back}");
        let mut beyond = Cubic::default();
        let reduced = beyond.reduced(400);
        assert!(grow(&mut beyond, reduced, 2 * k_ms) > 480);
    }

    #[test]
    fn before_the_first_loss_a_round_trip_adds_a_twentieth() {
        let grown = grow(&mut Cubic::default(), 200, 500);
        let expected = (200.0 * 1.05_f64.powi(10)) as u64;
        assert!(grown.abs_diff(expected) <= 12, "{grown}, expected about {expected}");
    }

    #[test]
    fn a_second_loss_below_the_first_leaves_room() {
        let mut cubic = Cubic::default();
        cubic.reduced(400);
        cubic.reduced(300);
        assert_eq!(cubic.last_max, 300 * (1024 + 717) / 2048);
    }
}
