//! How much a TCP sender may have in flight: slow start and CUBIC.
//!
//! The real connection runs over loopback, where its window never matters. Over a link with a round
//! trip it does: the first 100 KB take several round trips, whatever the rate. So each direction of a
//! connection has the window that Linux would give it (IW10, RFC 6928; slow start with HyStart, Ha and
//! Rhee 2011; CUBIC, RFC 9438; restart after idle, RFC 5681 section 4.1), on the link's own clock.

use super::{super::profile::Transport, repair::Clock};

/// Below this window HyStart does not look, segments.
const HYSTART_LOW: f64 = 16.0;
const HYSTART_SAMPLES: u32 = 8;
/// Acks closer than this belong to one train, ns.
const TRAIN_GAP_NS: u64 = 2_000_000;
/// What Linux allows for acks that were held back, ns.
const ACK_DELAY_NS: u64 = 1_000_000;
/// CUBIC's constants (RFC 9438 section 4.1, 4.6).
const CUBIC_C: f64 = 0.4;
const CUBIC_BETA: f64 = 717.0 / 1024.0;
/// Before the first loss Linux lets the window grow by at least 1/20 a round trip.
const FIRST_EPOCH_ACKS: f64 = 20.0;
const MIN_RTO_NS: u64 = 200_000_000;
const FIRST_RTO_NS: u64 = 1_000_000_000;

/// The congestion window of one sender, in segments.
#[derive(Debug)]
pub(super) struct Window {
    initial: f64,
    restarts: bool,
    cwnd: f64,
    ssthresh: f64,
    last_max: f64,
    epoch: Option<Epoch>,
    hystart: HyStart,
    rtt: RttEstimate,
}

#[derive(Debug)]
struct Epoch {
    start: u64,
    k_s: f64,
    origin: f64,
    /// What Reno would have by now: CUBIC is never slower.
    reno: f64,
}

#[derive(Debug, Default)]
struct HyStart {
    found: bool,
    /// The round ends when this offset is acknowledged.
    round_end: u64,
    round_start: u64,
    last_ack: u64,
    least_rtt: u64,
    samples: u32,
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
    pub(super) segments: f64,
    pub(super) rtt_ns: u64,
    /// Offset acknowledged, and the highest one sent.
    pub(super) acked: u64,
    pub(super) sent: u64,
    /// In flight before this ack, segments.
    pub(super) flight: f64,
}

impl Window {
    /// None for an open window, whose sender only the link's queue holds back.
    pub(super) fn new(transport: &Transport) -> Option<Self> {
        let Transport::Tcp { initial_window, slow_start_after_idle, .. } = *transport else {
            return None;
        };
        Some(Self {
            initial: f64::from(initial_window.max(1)),
            restarts: slow_start_after_idle,
            cwnd: f64::from(initial_window.max(1)),
            ssthresh: f64::INFINITY,
            last_max: 0.0,
            epoch: None,
            hystart: HyStart::default(),
            rtt: RttEstimate::default(),
        })
    }

    pub(super) fn segments(&self) -> f64 {
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

    /// A packet goes out at `now` after nothing was in flight since `last`.
    pub(super) fn after_idle(&mut self, last: u64, now: u64) {
        let rto = self.rto();
        let mut idle = now.saturating_sub(last);
        if self.restarts && idle > rto {
            self.ssthresh = self.ssthresh.max(self.cwnd * 0.75);
            while idle > rto && self.cwnd > self.initial {
                self.cwnd = (self.cwnd / 2.0).max(self.initial);
                idle -= rto;
            }
        }
        // CUBIC's clock does not run while nothing is sent.
        self.epoch = None;
    }

    pub(super) fn on_ack(&mut self, ack: Ack) {
        self.rtt.sample(ack.rtt_ns);
        if self.cwnd < self.ssthresh {
            if !self.hystart.found && self.hystart_found(ack) {
                self.hystart.found = true;
                self.ssthresh = self.cwnd;
            }
            // Grows only if it was used (RFC 7661's concern, Linux' tcp_is_cwnd_limited).
            if self.cwnd < 2.0 * ack.flight {
                self.cwnd = (self.cwnd + ack.segments).min(self.ssthresh.max(self.cwnd));
            }
        } else if ack.flight + 2.0 >= self.cwnd {
            self.cubic(ack);
        }
    }

    /// Whether the pipe shows signs of being full: acks of one round stretch over half a round trip,
    /// or the least round trip of this round is longer than the least ever.
    fn hystart_found(&mut self, ack: Ack) -> bool {
        let (round, least) = (&mut self.hystart, self.rtt.least);
        if ack.acked > round.round_end {
            *round = HyStart {
                round_end: ack.sent,
                round_start: ack.now,
                last_ack: ack.now,
                least_rtt: u64::MAX,
                ..HyStart::default()
            };
        }
        if self.cwnd < HYSTART_LOW {
            return false;
        }
        if ack.now.saturating_sub(round.last_ack) <= TRAIN_GAP_NS {
            round.last_ack = ack.now;
            if ack.now.saturating_sub(round.round_start) > (least + ACK_DELAY_NS) / 2 {
                return true;
            }
        }
        round.least_rtt = round.least_rtt.min(ack.rtt_ns);
        if round.samples < HYSTART_SAMPLES {
            round.samples += 1;
            return false;
        }
        round.least_rtt > least + (least / 8).clamp(4_000_000, 16_000_000)
    }

    fn cubic(&mut self, ack: Ack) {
        let (cwnd, last_max) = (self.cwnd, self.last_max);
        let epoch = self.epoch.get_or_insert_with(|| {
            let origin = cwnd.max(last_max);
            let k_s = ((origin - cwnd) / CUBIC_C).cbrt();
            Epoch { start: ack.now, k_s, origin, reno: cwnd }
        });
        let t = (ack.now - epoch.start.min(ack.now) + self.rtt.least) as f64 / 1e9;
        let target = epoch.origin + CUBIC_C * (t - epoch.k_s).powi(3);
        let mut acks_per_segment = 100.0 * cwnd;
        if target > cwnd {
            acks_per_segment = cwnd / (target - cwnd);
        }
        if last_max == 0.0 {
            acks_per_segment = acks_per_segment.min(FIRST_EPOCH_ACKS);
        }
        // Reno with CUBIC's smaller decrease: 3(1-b)/(1+b) segments a round trip.
        epoch.reno += ack.segments * 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA) / cwnd;
        if epoch.reno > cwnd {
            acks_per_segment = acks_per_segment.min(cwnd / (epoch.reno - cwnd));
        }
        self.cwnd += ack.segments / acks_per_segment.max(2.0);
    }

    /// A loss was noticed: once for each flight.
    pub(super) fn on_loss(&mut self) {
        self.last_max = if self.cwnd < self.last_max {
            self.cwnd * (1.0 + CUBIC_BETA) / 2.0
        } else {
            self.cwnd
        };
        self.cwnd = (self.cwnd * CUBIC_BETA).max(2.0);
        self.ssthresh = self.cwnd;
        self.epoch = None;
    }

    /// Nothing was heard for too long: slow start from one segment.
    pub(super) fn on_timeout(&mut self) {
        self.on_loss();
        self.cwnd = 1.0;
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
