//! How long a message was under way, although edge and cloud have different clocks.
//!
//! Each exchange gives four stamps, as in NTP (RFC 5905, section 8): sent and returned by the
//! edge's clock, arrived and left by the cloud's. Their offset is known to within half the
//! difference of the two ways; it is taken from the exchange with the shortest time under way,
//! where that difference can be least.

/// The stamps of one exchange, ns, each on its own node's clock.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Which cloud process answered: another one has another clock.
    pub instance: u64,
    pub sent_ns: u64,
    pub arrived_ns: u64,
    pub left_ns: u64,
    pub returned_ns: u64,
}

/// The best estimate so far of what the cloud's clock is ahead of the edge's.
#[derive(Debug, Default)]
pub struct ClockOffset {
    best: Option<Best>,
}

#[derive(Debug)]
struct Best {
    instance: u64,
    under_way_ns: i64,
    offset_ns: i64,
}

impl ClockOffset {
    /// Learns from an exchange; gives its time up and down, ms. They are never negative and add up
    /// to the measured time under way, which needs no common clock.
    pub fn observe(&mut self, exchange: Exchange) -> (f64, f64) {
        let Exchange { instance, sent_ns, arrived_ns, left_ns, returned_ns } = exchange;
        let difference = |late: u64, early: u64| late.wrapping_sub(early) as i64;
        let in_cloud = difference(left_ns, arrived_ns);
        let under_way_ns = (difference(returned_ns, sent_ns) - in_cloud).max(0);
        let up_raw = difference(arrived_ns, sent_ns);
        let offset_ns = up_raw.wrapping_sub(under_way_ns / 2);
        let better = self
            .best
            .as_ref()
            .is_none_or(|b| b.instance != instance || under_way_ns <= b.under_way_ns);
        if better {
            self.best = Some(Best { instance, under_way_ns, offset_ns });
        }
        let offset = self.best.as_ref().map_or(offset_ns, |b| b.offset_ns);
        let up = up_raw.wrapping_sub(offset).clamp(0, under_way_ns);
        (up as f64 / 1e6, (under_way_ns - up) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exchange(offset: i64, sent: u64, up: u64, stay: u64, down: u64) -> Exchange {
        let arrived_ns = (sent + up).wrapping_add_signed(offset);
        Exchange {
            instance: 1,
            sent_ns: sent,
            arrived_ns,
            left_ns: arrived_ns + stay,
            returned_ns: sent + up + stay + down,
        }
    }

    proptest! {
        #[test]
        fn ways_add_up_and_err_by_no_more_than_the_best_ways_asymmetry(
            offset in -1_000_000_000_000i64..1_000_000_000_000,
            trips in prop::collection::vec((0u64..50_000_000, 0u64..9_000_000, 0u64..50_000_000), 1..20),
        ) {
            let mut clock = ClockOffset::default();
            let start = 2_000_000_000_000u64;
            let mut best = (u64::MAX, 0.0);
            for (i, (up, stay, down)) in trips.into_iter().enumerate() {
                let trip = exchange(offset, start + i as u64 * 1_000_000_000, up, stay, down);
                let (up_ms, down_ms) = clock.observe(trip);
                if up + down <= best.0 {
                    best = (up + down, (up as f64 - down as f64).abs() / 2e6);
                }
                prop_assert!(up_ms >= 0.0 && down_ms >= 0.0);
                prop_assert!((up_ms + down_ms - (up + down) as f64 / 1e6).abs() < 1e-6);
                prop_assert!((up_ms - up as f64 / 1e6).abs() <= best.1 + 1e-5);
            }
        }
    }

    #[test]
    fn another_cloud_process_has_another_clock() {
        let mut clock = ClockOffset::default();
        clock.observe(exchange(-5_000, 1_000_000, 1_000, 10, 1_000));
        let mut trip = exchange(900_000_000, 2_000_000, 4_000_000, 10, 4_000_000);
        trip.instance = 2;
        assert_eq!(clock.observe(trip), (4.0, 4.0));
    }
}
