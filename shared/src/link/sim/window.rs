//! How much a TCP sender may have in flight.
//!
//! The real connection runs over loopback, where its window never matters. Over a link with a round
//! trip it does: the first 100 KB take several round trips, whatever the rate. So each direction of a
//! connection has the window that Linux would give it (IW10, RFC 6928; slow start, HyStart and CUBIC;
//! restart after idle, RFC 5681 section 4.1), on the link's own clock.

use super::{
    super::profile::Transport,
    cubic::Cubic,
    hystart::{HyStart, Sample},
    repair::Clock,
};

const MIN_RTO_NS: u64 = 200_000_000;
const FIRST_RTO_NS: u64 = 1_000_000_000;
/// The bundles that HyStart makes allowance for (hystart_ack_delay()): four of the largest, 1 ms at most.
const BUNDLES_BYTES: u64 = 4 << 16;
const MOST_ACK_DELAY_NS: u64 = 1_000_000;

/// The congestion window of one sender, in segments.
#[derive(Debug)]
pub(super) struct Window {
    initial: u64,
    restarts: bool,
    mss: u64,
    cwnd: u64,
    ssthresh: u64,
    cubic: Cubic,
    hystart: HyStart,
    rtt: RttEstimate,
    usage: Usage,
}

/// Whether the window is what holds the sender up: else it does not grow (RFC 7661's concern, Linux'
/// tcp_cwnd_validate()).
#[derive(Debug, Default)]
struct Usage {
    full: bool,
    most_out: u64,
    /// Judged anew when this offset is acknowledged.
    until: u64,
}

#[derive(Debug, Default)]
struct RttEstimate {
    least: u64,
    smoothed: u64,
    deviation: u64,
}

/// What an acknowledgement tells the sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) now: u64,
    /// Newly delivered, in segments.
    pub(super) segments: u64,
    pub(super) rtt_ns: u64,
    /// Offset acknowledged, and the highest one sent.
    pub(super) acked: u64,
    pub(super) sent: u64,
    /// On the way, segments.
    pub(super) out: u64,
}

/// What is on the way after a sender's turn, in segments and as offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    pub(super) flight: u64,
    pub(super) segments: u64,
    pub(super) acked: u64,
    pub(super) sent: u64,
}

impl Window {
    /// None for an open window, whose sender only the link's queue holds back.
    pub(super) fn new(transport: &Transport, mss: u32) -> Option<Self> {
        let Transport::Tcp { initial_window, slow_start_after_idle, .. } = *transport else {
            return None;
        };
        let initial = u64::from(initial_window.max(1));
        Some(Self {
            initial,
            restarts: slow_start_after_idle,
            mss: u64::from(mss),
            cwnd: initial,
            ssthresh: u64::MAX,
            cubic: Cubic::default(),
            hystart: HyStart::default(),
            rtt: RttEstimate::default(),
            usage: Usage::default(),
        })
    }

    pub(super) fn segments(&self) -> u64 {
        self.cwnd
    }

    /// The round trips that timers are made of.
    pub(super) fn clock(&self, now: u64) -> Clock {
        let RttEstimate { least, smoothed, .. } = self.rtt;
        Clock { now, least, smoothed, timeout: self.rto() }
    }

    fn rto(&self) -> u64 {
        match self.rtt.smoothed {
            0 => FIRST_RTO_NS,
            smoothed => smoothed + (4 * self.rtt.deviation).max(MIN_RTO_NS),
        }
    }

    pub(super) fn smoothed_rtt(&self) -> u64 {
        self.rtt.smoothed
    }

    /// A packet goes out at `now` after nothing was in flight, and nothing was sent since `last`.
    pub(super) fn after_idle(&mut self, last: u64, now: u64) {
        let rto = self.rto();
        let mut idle = now.saturating_sub(last);
        self.cubic.stood_still(idle, now);
        if self.restarts && idle > rto {
            self.ssthresh = self.ssthresh.max(self.cwnd * 3 / 4);
            while idle > rto && self.cwnd > self.initial {
                self.cwnd = (self.cwnd / 2).max(self.initial);
                idle -= rto;
            }
        }
    }

    /// The sender has had its turn.
    pub(super) fn used(&mut self, out: Out) {
        let full = out.flight >= self.cwnd;
        let usage = &mut self.usage;
        if full || out.acked >= usage.until || (!usage.full && out.segments > usage.most_out) {
            *usage = Usage { full, most_out: out.segments, until: out.sent };
        }
    }

    fn in_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    fn holds_up(&self) -> bool {
        self.usage.full || (self.in_slow_start() && self.cwnd < 2 * self.usage.most_out)
    }

    pub(super) fn on_ack(&mut self, ack: Ack) {
        self.rtt.sample(ack.rtt_ns);
        // Round trips soon after a loss are not the path's own.
        if !self.cubic.is_fresh(ack.now) {
            self.hystart.measured(ack.rtt_ns);
            if self.in_slow_start() && self.hystart.says_stop(self.cwnd, self.sample(ack)) {
                self.ssthresh = self.cwnd;
            }
        }
        if ack.segments == 0 || !self.holds_up() {
            return;
        }
        let mut segments = ack.segments;
        if self.in_slow_start() {
            let grown = (self.cwnd + segments).min(self.ssthresh);
            segments -= grown - self.cwnd;
            self.cwnd = grown;
        }
        if segments > 0 {
            self.cwnd = self.cubic.grown(self.cwnd, segments, self.hystart.least_rtt(), ack.now);
        }
    }

    fn sample(&self, ack: Ack) -> Sample {
        let Ack { now, rtt_ns, acked, sent, out, .. } = ack;
        let delay = (BUNDLES_BYTES * 1_000_000_000).checked_div(self.pacing_rate(out));
        let ack_delay_ns = delay.unwrap_or(u64::MAX).min(MOST_ACK_DELAY_NS);
        Sample { now, rtt_ns, acked, sent, ack_delay_ns }
    }

    /// How fast the sender would go if it were paced, bytes/s, with so many segments out
    /// (tcp_update_pacing_rate()).
    pub(super) fn pacing_rate(&self, out: u64) -> u64 {
        let percent = if self.cwnd < self.ssthresh / 2 { 200 } else { 120 };
        let round = u128::from(self.cwnd.max(out) * self.mss * percent) * 10_000_000;
        let rate = round.checked_div(u128::from(self.rtt.smoothed));
        rate.and_then(|rate| u64::try_from(rate).ok()).unwrap_or(u64::MAX)
    }

    /// A loss was noticed: once for each flight.
    pub(super) fn on_loss(&mut self) {
        self.cwnd = self.cubic.reduced(self.cwnd);
        self.ssthresh = self.cwnd;
    }

    /// Nothing was heard for too long: slow start from one segment, and all that was known about the path
    /// is forgotten.
    pub(super) fn on_timeout(&mut self) {
        self.on_loss();
        self.cwnd = 1;
        (self.cubic, self.hystart) = (Cubic::default(), HyStart::default());
    }
}

impl RttEstimate {
    /// RFC 6298 section 2.
    fn sample(&mut self, rtt: u64) {
        if self.smoothed == 0 {
            (self.least, self.smoothed, self.deviation) = (rtt, rtt.max(1), rtt / 2);
            return;
        }
        self.least = self.least.min(rtt);
        self.deviation = (3 * self.deviation + self.smoothed.abs_diff(rtt)) / 4;
        self.smoothed = ((7 * self.smoothed + rtt) / 8).max(1);
    }
}
