//! When a sender leaves slow start before it loses anything: HyStart (Ha and Rhee, 2011) as Linux 6.1
//! has it (hystart_update() in net/ipv4/tcp_cubic.c).

/// Below this window it does not look, segments.
const LOW_WINDOW: u64 = 16;
/// So many round trips of a round are looked at before they are judged.
const SAMPLES: u32 = 8;
/// Acknowledgements closer than this belong to one train, ns.
const TRAIN_GAP_NS: u64 = 2_000_000;
/// How much longer than the least a round trip may be: an eighth, within these bounds, ns.
const LEAST_DELAY_NS: u64 = 4_000_000;
const MOST_DELAY_NS: u64 = 16_000_000;

#[derive(Debug, Default)]
pub(super) struct HyStart {
    found: bool,
    /// The least round trip so far.
    least_rtt: u64,
    /// The round ends when more than this offset is acknowledged.
    round_end: u64,
    round_start: u64,
    last_ack: u64,
    round_rtt: u64,
    samples: u32,
}

/// What an acknowledgement shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) now: u64,
    pub(super) rtt_ns: u64,
    pub(super) acked: u64,
    pub(super) sent: u64,
    /// How long acknowledgements may be held back on account of bundled packets, ns.
    pub(super) ack_delay_ns: u64,
}

impl HyStart {
    pub(super) fn least_rtt(&self) -> u64 {
        self.least_rtt
    }

    pub(super) fn measured(&mut self, rtt_ns: u64) {
        let rtt_ns = rtt_ns.max(1);
        self.least_rtt = if self.least_rtt == 0 { rtt_ns } else { self.least_rtt.min(rtt_ns) };
    }

    /// Whether the pipe shows signs of being full, for the first time: acknowledgements of one round
    /// stretch over half a round trip, or all its round trips are longer than the least ever.
    pub(super) fn says_stop(&mut self, cwnd: u64, sample: Sample) -> bool {
        if self.found {
            return false;
        }
        let Sample { now, rtt_ns, acked, sent, ack_delay_ns } = sample;
        if acked > self.round_end {
            (self.round_end, self.round_start, self.last_ack) = (sent, now, now);
            (self.round_rtt, self.samples) = (u64::MAX, 0);
        }
        if cwnd < LOW_WINDOW {
            return false;
        }
        if now - self.last_ack <= TRAIN_GAP_NS {
            self.last_ack = now;
            self.found = now - self.round_start > (self.least_rtt + ack_delay_ns) / 2;
        }
        self.round_rtt = self.round_rtt.min(rtt_ns);
        if self.samples < SAMPLES {
            self.samples += 1;
        } else {
            let patience = (self.least_rtt / 8).clamp(LEAST_DELAY_NS, MOST_DELAY_NS);
            self.found |= self.round_rtt > self.least_rtt + patience;
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn sample(now: u64, rtt_ns: u64) -> Sample {
        Sample { now, rtt_ns, acked: now, sent: 1_000 * MS, ack_delay_ns: MS }
    }

    fn after(least_rtt: u64) -> HyStart {
        let mut hystart = HyStart::default();
        hystart.measured(least_rtt);
        hystart
    }

    #[test]
    fn a_round_of_long_round_trips_ends_slow_start_at_its_ninth() {
        for (rtt, stops) in [(44 * MS, false), (46 * MS, true)] {
            let mut hystart = after(40 * MS);
            // The first 8 are looked at, one of them alone would do.
            let early: Vec<bool> =
                (1..=8).map(|n| hystart.says_stop(20, sample(n * MS / 2, rtt))).collect();
            assert_eq!(early, [false; 8]);
            assert_eq!(hystart.says_stop(20, sample(5 * MS, rtt)), stops, "{rtt}");
        }
    }

    #[test]
    fn a_long_train_of_acknowledgements_ends_it_if_it_has_no_gap() {
        let stopped_at = |step: u64| {
            let mut hystart = after(40 * MS);
            (1..40).map(|n| n * step).find(|at| hystart.says_stop(20, sample(*at, 40 * MS)))
        };
        // Half of the round trip and what acknowledgements may be held back.
        assert_eq!(stopped_at(2 * MS), Some(24 * MS));
        assert_eq!(stopped_at(3 * MS), None);
    }

    #[test]
    fn a_small_window_is_left_alone() {
        let mut hystart = after(40 * MS);
        assert!((1..60).all(|n| !hystart.says_stop(15, sample(n * MS, 100 * MS))));
    }
}
