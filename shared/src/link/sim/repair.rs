//! What a sender does about packets that were dropped, as Linux 6.1 does it: RACK and the tail loss
//! probe (RFC 8985), proportional rate reduction (RFC 6937), the retransmission timeout (RFC 6298).
//!
//! The simulation knows which packets it dropped; a sender here learns of it only when it would.

use std::collections::VecDeque;

use super::flow::Stretch;

/// So many segments beyond a hole prove it at once (RFC 8985's DupThresh).
const DUP_THRESH: u64 = 3;
/// Added to timers for the sake of the clock's ticks (TCP_TIMEOUT_MIN_US).
const TICK_NS: u64 = 2_000_000;
/// Added to the probe's timer when one packet is out, whose answer may be held back (TCP_RTO_MIN).
const LONE_PACKET_NS: u64 = 200_000_000;

/// A packet that found the queue full.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    stretch: Stretch,
    /// Its place in the order of sending.
    order: u64,
    at: u64,
}

/// How the sender comes back from a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mode {
    #[default]
    Open,
    /// By the acknowledgements' clock: proportional rate reduction.
    Recovery,
    /// After a timeout: slow start from one segment.
    Loss,
}

/// Round trips as the sender knows them, ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: u64,
    pub(super) least: u64,
    pub(super) smoothed: u64,
    pub(super) timeout: u64,
}

/// What a timer or an acknowledgement calls for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Nothing,
    /// A loss: the window shrinks, and this was noticed by acknowledgements or by the timeout.
    Lost,
    TimedOut,
    /// A probe is due: a new packet whatever the window, or the last one again.
    Probe,
}

#[derive(Debug)]
pub(super) struct Repair {
    mss: u64,
    /// Bytes on the way, as far as the sender knows.
    pub(super) flight: u64,
    dropped: VecDeque<Dropped>,
    pub(super) resend: VecDeque<Stretch>,
    mode: Mode,
    /// The recovery is over when this offset is acknowledged.
    until: u64,
    /// The end of the last hole that was noticed.
    noticed: u64,
    reduction: Reduction,
    /// A probe is out until this offset is acknowledged.
    probe: Option<u64>,
    /// May be sent whatever the window: the probe.
    pub(super) probing: bool,
    /// Timers count from here: the last progress.
    progress_at: u64,
    /// Holes that few packets have passed count as lost then.
    reorder_at: Option<u64>,
    /// For when a timer is set.
    pub(super) timer_at: Option<u64>,
}

/// Proportional rate reduction, in segments.
#[derive(Clone, Copy, Debug, Default)]
struct Reduction {
    target: u64,
    prior: u64,
    delivered: u64,
    sent: u64,
    allowance: u64,
}

impl Repair {
    pub(super) fn new(mss: u32) -> Self {
        Self {
            mss: u64::from(mss),
            flight: 0,
            dropped: VecDeque::new(),
            resend: VecDeque::new(),
            mode: Mode::Open,
            until: 0,
            noticed: 0,
            reduction: Reduction::default(),
            probe: None,
            probing: false,
            progress_at: 0,
            reorder_at: None,
            timer_at: None,
        }
    }

    /// In a recovery that acknowledgements clock: what may be sent now, bytes.
    pub(super) fn allowance(&self) -> Option<u64> {
        (self.mode == Mode::Recovery).then_some(self.reduction.allowance * self.mss)
    }

    pub(super) fn window_may_grow(&self) -> bool {
        self.mode != Mode::Recovery
    }

    /// A packet went out, into the queue or not. `acked`: the offset up to which all is acknowledged.
    pub(super) fn sent(&mut self, packet: Sent, acked: u64, now: u64) {
        let Sent { stretch, order, dropped } = packet;
        self.flight += stretch.end - stretch.start;
        if self.resend.front().is_some_and(|first| first.start == stretch.start) {
            self.resend.pop_front();
        }
        self.reduction.allowance = self.reduction.allowance.saturating_sub(1);
        self.reduction.sent += 1;
        if std::mem::take(&mut self.probing) {
            self.probe = Some(stretch.end);
        }
        if (self.mode == Mode::Open && self.probe.is_none()) || stretch.start <= acked {
            self.progress_at = now;
        }
        if dropped {
            self.dropped.push_back(Dropped { stretch, order, at: now });
        }
    }

    /// An acknowledgement has come back.
    pub(super) fn acknowledged(&mut self, seen: &Seen, clock: Clock) -> Verdict {
        self.flight = self.flight.saturating_sub(seen.fresh);
        if seen.advanced {
            self.progress_at = clock.now;
        }
        if self.probe.is_some_and(|end| seen.next >= end) {
            self.probe = None;
        }
        if self.mode != Mode::Open && seen.next >= self.until {
            self.mode = Mode::Open;
        }
        let newly_lost = self.notice(seen, clock);
        let verdict = if self.mode == Mode::Open && self.noticed > seen.next.max(self.until) {
            Verdict::Lost
        } else {
            Verdict::Nothing
        };
        if self.mode == Mode::Recovery {
            self.reduce(seen.fresh, seen.advanced, newly_lost);
        }
        verdict
    }

    /// Moves what the sender now knows to be lost to what it sends again. True if there was any.
    fn notice(&mut self, seen: &Seen, clock: Clock) -> bool {
        let beyond = (seen.delivered - seen.next).div_ceil(self.mss);
        let proven = self.mode != Mode::Open || beyond >= DUP_THRESH;
        self.reorder_at = None;
        let mut found = false;
        while let Some(first) = self.dropped.front().filter(|first| first.order < seen.latest) {
            let patience = seen.round_trip + clock.least / 4;
            if !proven && clock.now < first.at + patience {
                self.reorder_at = Some(first.at + patience + TICK_NS);
                break;
            }
            self.notice_first();
            found = true;
        }
        found
    }

    fn notice_first(&mut self) {
        if let Some(lost) = self.dropped.pop_front() {
            self.noticed = self.noticed.max(lost.stretch.end);
            self.flight = self.flight.saturating_sub(lost.stretch.end - lost.stretch.start);
            self.resend.push_back(lost.stretch);
        }
    }

    /// Begins a recovery, over when all that was sent is acknowledged: the window comes down from `prior`
    /// to `target` segments. `seen` is the acknowledgement that showed the loss, if one did.
    pub(super) fn recover(&mut self, sent: u64, prior: u64, target: u64, seen: Option<&Seen>) {
        (self.mode, self.until, self.probe) = (Mode::Recovery, sent, None);
        self.reduction = Reduction { target, prior: prior.max(1), ..Reduction::default() };
        match seen {
            Some(seen) => self.reduce(seen.fresh, seen.advanced, true),
            None => self.reduce(self.mss, false, false),
        }
    }

    /// RFC 6937 section 3.1 as tcp_cwnd_reduction() has it: what is sent again must not hit the full queue
    /// in one burst.
    fn reduce(&mut self, fresh: u64, advanced: bool, newly_lost: bool) {
        let (fresh, flight) = (fresh.div_ceil(self.mss), self.flight.div_ceil(self.mss));
        if fresh == 0 {
            return;
        }
        let reduction = &mut self.reduction;
        reduction.delivered += fresh;
        let due = if flight > reduction.target {
            let share = (reduction.delivered * reduction.target).div_ceil(reduction.prior);
            share.saturating_sub(reduction.sent)
        } else {
            let caught_up = reduction.delivered.saturating_sub(reduction.sent).max(fresh);
            let more = u64::from(advanced && !newly_lost);
            (caught_up + more).min(reduction.target - flight)
        };
        // The first one goes out at once.
        reduction.allowance = due.max(u64::from(reduction.sent == 0));
    }

    /// When the sender will act if no acknowledgement comes; none if nothing was dropped.
    pub(super) fn deadline(&self, packets_out: u64, clock: Clock) -> Option<u64> {
        if self.dropped.is_empty() && self.resend.is_empty() {
            return None;
        }
        let timeout = self.progress_at.saturating_add(clock.timeout);
        if self.mode != Mode::Open || self.probe.is_some() || clock.smoothed == 0 {
            return Some(self.reorder_at.unwrap_or(timeout));
        }
        let patience = if packets_out == 1 { LONE_PACKET_NS } else { TICK_NS };
        let probe = self.progress_at.saturating_add(2 * clock.smoothed + patience);
        Some(self.reorder_at.unwrap_or(probe.min(timeout)))
    }

    /// The deadline has come.
    pub(super) fn timed_out(&mut self, packets_out: u64, clock: Clock) -> Verdict {
        if self.deadline(packets_out, clock).is_none_or(|deadline| deadline > clock.now) {
            return Verdict::Nothing;
        }
        if self.reorder_at.take().is_some() {
            self.notice_first();
            return if self.mode == Mode::Open { Verdict::Lost } else { Verdict::Nothing };
        }
        if self.mode == Mode::Open
            && self.probe.is_none()
            && clock.now < self.progress_at.saturating_add(clock.timeout)
        {
            self.probing = true;
            return Verdict::Probe;
        }
        while !self.dropped.is_empty() {
            self.notice_first();
        }
        self.progress_at = clock.now;
        Verdict::TimedOut
    }

    /// The last packet goes out again as a probe.
    pub(super) fn resend_last(&mut self, last: Stretch) {
        self.resend.push_front(last);
        let was_dropped = self.dropped.back().is_some_and(|d| d.stretch.start == last.start);
        if was_dropped {
            self.dropped.pop_back();
        }
        // Counted once, whichever of the two arrives.
        self.flight = self.flight.saturating_sub(last.end - last.start);
    }

    /// After a timeout everything not acknowledged is sent again, in slow start.
    pub(super) fn start_over(&mut self, sent: u64) {
        (self.mode, self.until, self.probe) = (Mode::Loss, sent, None);
    }
}

/// What an acknowledgement shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// All before this offset is there; so many bytes in all; the latest packet, in the order of sending.
    pub(super) next: u64,
    pub(super) delivered: u64,
    pub(super) latest: u64,
    /// Newly delivered, and whether `next` moved.
    pub(super) fresh: u64,
    pub(super) advanced: bool,
    /// Of the packet that is answered, ns.
    pub(super) round_trip: u64,
}

/// A packet as it goes out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) stretch: Stretch,
    /// Its place in the order of sending.
    pub(super) order: u64,
    /// It found the queue full.
    pub(super) dropped: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn clock(now: u64) -> Clock {
        Clock { now, least: 10 * MS, smoothed: 10 * MS, timeout: 210 * MS }
    }

    /// Sends packets of 1,000 bytes at once, of which those were dropped.
    fn sent(count: u64, dropped: &[u64]) -> Repair {
        let mut repair = Repair::new(1_000);
        for n in 0..count {
            let stretch = Stretch { start: 1_000 * n, end: 1_000 * (n + 1) };
            let dropped = dropped.contains(&n);
            repair.sent(Sent { stretch, order: n + 1, dropped }, 0, 0);
        }
        repair
    }

    fn seen(next: u64, delivered: u64, latest: u64, fresh: u64) -> Seen {
        Seen { next, delivered, latest, fresh, advanced: fresh > 0, round_trip: 10 * MS }
    }

    #[test]
    fn three_packets_beyond_a_hole_prove_it() {
        let mut repair = sent(6, &[1]);
        assert_eq!(
            repair.acknowledged(&seen(1_000, 1_000, 1, 1_000), clock(10 * MS)),
            Verdict::Nothing
        );
        for n in [2, 3] {
            let one = seen(1_000, 1_000 * n, n + 1, 1_000);
            assert_eq!(repair.acknowledged(&one, clock(10 * MS)), Verdict::Nothing, "packet {n}");
        }
        let third = seen(1_000, 4_000, 5, 1_000);
        assert_eq!(repair.acknowledged(&third, clock(10 * MS)), Verdict::Lost);
        repair.recover(6_000, 10, 7, Some(&third));
        assert_eq!(repair.resend.front().map(|s| s.start), Some(1_000));
        assert_eq!(repair.flight, 1_000, "the last one");
        assert!(repair.allowance() >= Some(1_000), "goes out at once");
    }

    #[test]
    fn fewer_prove_it_after_a_quarter_of_a_round_trip() {
        let mut repair = sent(3, &[1]);
        let beyond = seen(1_000, 2_000, 3, 2_000);
        assert_eq!(repair.acknowledged(&beyond, clock(10 * MS)), Verdict::Nothing);
        let deadline = 10 * MS + 10 * MS / 4 + 2 * MS;
        assert_eq!(repair.deadline(2, clock(10 * MS)), Some(deadline));
        assert_eq!(repair.timed_out(2, clock(deadline)), Verdict::Lost);
    }

    #[test]
    fn a_lost_tail_is_probed_for_and_then_timed_out() {
        let mut repair = sent(3, &[1, 2]);
        repair.acknowledged(&seen(1_000, 1_000, 1, 1_000), clock(10 * MS));
        let probe = 10 * MS + 2 * 10 * MS + 2 * MS;
        assert_eq!(repair.deadline(2, clock(10 * MS)), Some(probe));
        assert_eq!(repair.timed_out(2, clock(probe)), Verdict::Probe);
        let last = Stretch { start: 2_000, end: 3_000 };
        repair.resend_last(last);
        assert!(repair.probing, "whatever the window");
        repair.sent(Sent { stretch: last, order: 4, dropped: true }, 1_000, probe);
        assert!(!repair.probing && repair.resend.is_empty());
        let timeout = 10 * MS + 210 * MS;
        assert_eq!(repair.deadline(2, clock(probe)), Some(timeout));
        assert_eq!(repair.timed_out(2, clock(timeout)), Verdict::TimedOut);
        assert_eq!(repair.resend.len(), 2, "both go out again");
    }
}
