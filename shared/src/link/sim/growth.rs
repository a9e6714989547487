//! How far a receiver lets its sender go: the window of Linux 6.1 and its growth (dynamic right-sizing,
//! Fisk and Feng, LACSI 2001; tcp_rcv_space_adjust() and tcp_grow_window()).
//!
//! It is rarely what holds a sender up; but while it grows the receiver answers more often.

/// The first window (half of tcp_rmem's default), bytes.
const FIRST: u64 = 65_160;
/// Packets of an initial window, and what a sender in slow start may add, packets.
const INITIAL_PACKETS: u64 = 10;
const CUSHION_PACKETS: u64 = 16;
const NS_PER_MS: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct ReceiveWindow {
    mss: u64,
    /// What is offered now, what it may grow to, and what that may become, bytes.
    pub(super) offered: u64,
    limit: u64,
    most: u64,
    /// Bytes read in the last round trip, and since when and from which offset they are counted.
    space: u64,
    from: u64,
    since: u64,
    /// The round trip by timestamps (RFC 7323), which tick in ms; and the last one that was echoed.
    round_trip: Option<u64>,
    echoed: u64,
}

impl ReceiveWindow {
    /// `most`: what the system allows, bytes.
    pub(super) fn new(mss: u32, most: u64) -> Self {
        let mss = u64::from(mss);
        Self {
            mss,
            offered: FIRST,
            limit: FIRST,
            most,
            space: INITIAL_PACKETS * mss,
            from: 0,
            since: 0,
            round_trip: None,
            echoed: u64::MAX,
        }
    }

    /// A packet of `len` bytes has come that echoes the timestamp `stamp`. True if the window grew.
    pub(super) fn arrived(&mut self, len: u64, stamp: u64, now: u64) -> bool {
        let (stamp, now) = (stamp / NS_PER_MS, now / NS_PER_MS);
        if stamp != self.echoed {
            self.echoed = stamp;
            if len >= self.mss {
                self.sample((now.saturating_sub(stamp)).max(1) * NS_PER_MS);
            }
        }
        let room = self.limit.saturating_sub(self.offered);
        self.offered += room.min(2 * self.mss);
        // Linux' measure of a small packet that is not worth a larger window.
        room > 0 && len >= 128
    }

    fn sample(&mut self, sample: u64) {
        self.round_trip = Some(match self.round_trip {
            Some(known) if sample >= known => known - known / 8 + sample / 8,
            _ => sample,
        });
    }

    /// The application has read everything before the offset `next`, at `at`.
    pub(super) fn read(&mut self, next: u64, at: u64) {
        let Some(round_trip) = self.round_trip else { return };
        if at.saturating_sub(self.since) < round_trip {
            return;
        }
        let copied = next - self.from;
        if copied > self.space {
            let steady = 2 * copied + CUSHION_PACKETS * self.mss;
            let more =
                u128::from(steady) * u128::from(copied - self.space) / u128::from(self.space);
            let wanted = u128::from(steady) + 2 * more;
            let wanted = u64::try_from(wanted).unwrap_or(u64::MAX).min(self.most);
            self.limit = self.limit.max(wanted);
            self.space = copied;
        }
        (self.from, self.since) = (next, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_with_what_is_read_in_a_round_trip() {
        let mut window = ReceiveWindow::new(1_000, 300_000);
        // A packet every ms that echoes what was sent 20 ms before.
        let ms = |t: u64| t * NS_PER_MS;
        let mut next = 0;
        for t in 20..39 {
            next += 2_000;
            assert!(!window.arrived(1_000, ms(t - 20), ms(t)), "nothing was read for a round trip");
            window.read(next, ms(t));
        }
        for t in 39..400 {
            let before = window.offered;
            next += 2_000;
            assert_eq!(window.arrived(1_000, ms(t - 20), ms(t)), window.offered > before);
            assert!(window.offered <= before + 2_000, "two packets for one");
            window.read(next, ms(t));
        }
        // 40 packets a round trip, and what a sender in slow start may add.
        assert!((80_000..=300_000).contains(&window.offered), "{window:?}");
        assert_eq!(window.offered, window.limit);
    }
}
