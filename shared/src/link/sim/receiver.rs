//! The receiving end of a flow: what has arrived, and when that is acknowledged.
//!
//! As Linux 6.1 does it (net/ipv4/tcp_input.c): quick acks at first and while the window grows, unless
//! the receiver sends data itself; else one for every second packet (RFC 5681 section 4.2), held back for
//! 40 ms at most; and what the application read is answered if that is more than one packet. While there
//! is a hole the first three answers go at once and later ones are compressed.

use std::collections::BTreeMap;

use super::{
    flow::Stretch,
    growth::ReceiveWindow,
    packet::{AckPacket, FlowId},
};

/// So many packets a receiver answers one by one at first, so that the sender's window opens sooner.
const QUICK_ANSWERS: u8 = 16;
/// So many acknowledgements of one hole go at once; then they are held back for a twentieth of a round
/// trip or 1 ms (tcp_comp_sack_delay_ns), or until so many are due (tcp_comp_sack_nr).
const HOLE_ANSWERS: u8 = 3;
const HOLE_HOLD_NS: u64 = 1_000_000;
const HOLE_HELD_MOST: u8 = 44;
/// The window in a connection's first answer is larger by this than the buffer allows for, bytes.
const OVERPROMISED: u64 = 1_064;
/// A sender that was silent for longer is met with quick acks again (its least retransmission timeout).
const SILENCE_NS: u64 = 200_000_000;

/// What becomes of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Now(AckPacket),
    /// Held back until then; a timer is to be set.
    At(u64),
    None,
}

/// A packet of data as it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) stretch: Stretch,
    /// Its place in the order of sending, and when it was sent.
    pub(super) order: u64,
    pub(super) sent_at: u64,
    /// When the acknowledgement was sent that its sender had heard last.
    pub(super) stamp: u64,
}

#[derive(Debug)]
pub(super) struct Receiver {
    /// All before this offset is there, and what is there beyond it.
    pub(super) next: u64,
    islands: BTreeMap<u64, u64>,
    /// The end of the last byte that is there, and how many are there in all.
    pub(super) highest: u64,
    pub(super) delivered: u64,
    /// The latest packet that arrived, in the order of sending.
    latest: u64,
    /// When the last one arrived, and how many came at that instant.
    heard_at: u64,
    together: u8,
    window: ReceiveWindow,

    unanswered: u8,
    /// Nothing has been answered yet that counts against what the first window promised too much.
    overpromised: bool,
    quick_answers: u8,
    /// The receiver sends data of its own, soon after what it hears (Linux' ping-pong mode): its answers
    /// can ride along.
    interactive: bool,
    hold: Hold,
    held: Option<Held>,
    /// Answers that the present hole has had, and where it begins.
    hole_answers: (u64, u8),
    hole_held: u8,
}

/// How long an acknowledgement may wait for data to ride on, ns: adapts to the gaps between packets
/// (Linux' ato).
#[derive(Clone, Copy, Debug)]
struct Hold(u64);

impl Hold {
    /// TCP_ATO_MIN and TCP_DELACK_MIN.
    const LEAST_NS: u64 = 40_000_000;

    fn heard(&mut self, gap: u64) {
        if gap <= Self::LEAST_NS / 2 {
            self.0 = self.0 / 2 + Self::LEAST_NS / 2;
        } else if gap < self.0 {
            self.0 = self.0 / 2 + gap;
        }
    }

    fn time(self, round_trip: u64) -> u64 {
        self.0.min(round_trip.max(Self::LEAST_NS))
    }

    fn in_vain(&mut self, interactive: bool) {
        self.0 = if interactive { Self::LEAST_NS } else { (2 * self.0).min(SILENCE_NS) };
    }
}

/// An acknowledgement that waits.
#[derive(Clone, Copy, Debug)]
struct Held {
    until: u64,
    /// When the packet that it answers was sent.
    echo: u64,
}

impl Receiver {
    /// `most_window`: what the system lets the receive window grow to, bytes.
    pub(super) fn new(mss: u32, most_window: u64) -> Self {
        Self {
            next: 0,
            islands: BTreeMap::new(),
            highest: 0,
            delivered: 0,
            latest: 0,
            heard_at: 0,
            together: 0,
            window: ReceiveWindow::new(mss, most_window),
            unanswered: 0,
            overpromised: true,
            quick_answers: QUICK_ANSWERS,
            interactive: false,
            hold: Hold(Hold::LEAST_NS),
            held: None,
            hole_answers: (0, 0),
            hole_held: 0,
        }
    }

    /// Takes a packet in. True if it filled the last hole.
    pub(super) fn arrived(&mut self, packet: &Arrived, now: u64) -> bool {
        let Stretch { start, end } = packet.stretch;
        let had_holes = !self.islands.is_empty();
        if now > self.heard_at {
            self.window.read(self.next, self.heard_at);
        }
        self.latest = self.latest.max(packet.order);
        self.highest = self.highest.max(end);
        self.unanswered = self.unanswered.saturating_add(1);
        if start > self.next {
            if self.islands.insert(start, end).is_none() {
                self.delivered += end - start;
            }
        } else if end > self.next {
            self.delivered += end - self.next;
            self.next = end;
            while let Some(island) = self.islands.first_entry()
                && *island.key() <= self.next
            {
                self.next = self.next.max(island.remove());
            }
        }
        had_holes && self.islands.is_empty()
    }

    /// What is done about the acknowledgement of `packet`. `filled`: it filled the last hole;
    /// `round_trip`: the least, which bounds how long answers to a hole are held back.
    pub(super) fn answer(
        &mut self,
        flow: FlowId,
        packet: &Arrived,
        filled: bool,
        round_trip: u64,
        now: u64,
    ) -> Answer {
        if now > self.heard_at + SILENCE_NS + round_trip {
            self.quick_answers = QUICK_ANSWERS;
        }
        self.together = if now == self.heard_at { self.together.saturating_add(1) } else { 1 };
        self.hold.heard(now - self.heard_at);
        self.heard_at = now;
        let Stretch { start, end } = packet.stretch;
        if self.window.arrived(end - start, packet.stamp, now) {
            self.quick_answers |= 1;
        }
        let in_hole = !self.islands.is_empty() && packet.stretch.start > self.next;
        let quick = self.quick_answers > 0 && !self.interactive;
        // While what is not read yet takes from what was promised, the answer waits for the application.
        // Whether that gets in between packets that come together is a matter of fractions of a µs.
        let waits = self.overpromised && (now >> self.together.min(8)) & 1 == 0;
        if filled || quick || (self.unanswered >= 2 && !in_hole && !waits) {
            self.quick_answers = self.quick_answers.saturating_sub(1);
            return Answer::Now(self.ack(flow, packet.sent_at));
        }
        let hold = match in_hole {
            // When the application has read them all.
            false if self.unanswered >= 2 => 0,
            false => self.hold.time(round_trip),
            true if self.hole_is_new() => return Answer::Now(self.ack(flow, packet.sent_at)),
            true => (round_trip / 20).min(HOLE_HOLD_NS),
        };
        self.hole_held += u8::from(in_hole);
        if self.hole_held >= HOLE_HELD_MOST {
            return Answer::Now(self.ack(flow, packet.sent_at));
        }
        let until = (now + hold).min(self.held.map_or(u64::MAX, |held| held.until));
        let later = self.held.replace(Held { until, echo: packet.sent_at });
        if later.is_some_and(|held| held.until == until) { Answer::None } else { Answer::At(until) }
    }

    /// Whether the present hole has had few answers; counts this one.
    fn hole_is_new(&mut self) -> bool {
        if self.hole_answers.0 != self.next {
            self.hole_answers = (self.next, 0);
        }
        self.hole_answers.1 += 1;
        self.hole_answers.1 = self.hole_answers.1.min(HOLE_ANSWERS + 1);
        self.hole_answers.1 <= HOLE_ANSWERS
    }

    /// The acknowledgement that was held back until now: nothing took it along.
    pub(super) fn late(&mut self, flow: FlowId, now: u64) -> Option<AckPacket> {
        let held = self.held.filter(|held| held.until <= now)?;
        if self.islands.is_empty() && self.unanswered < 2 {
            // Waiting was in vain: it does not seem to be that kind of conversation.
            self.hold.in_vain(self.interactive);
            self.interactive = false;
        }
        Some(self.ack(flow, held.echo))
    }

    /// How far the sender may go.
    pub(super) fn window_end(&self) -> u64 {
        self.next + self.window.offered
    }

    /// The receiver sends data, which takes along what was held back.
    pub(super) fn ride_along(&mut self, flow: FlowId, now: u64) -> Option<AckPacket> {
        self.interactive |= self.delivered > 0 && now < self.heard_at + self.hold.0;
        let held = self.held?;
        Some(self.ack(flow, held.echo))
    }

    fn ack(&mut self, flow: FlowId, echo: u64) -> AckPacket {
        self.overpromised &= self.next <= OVERPROMISED;
        (self.unanswered, self.hole_held, self.held) = (0, 0, None);
        AckPacket {
            flow,
            next: self.next,
            latest: self.latest,
            delivered: self.delivered,
            window_end: self.window_end(),
            echo,
        }
    }
}
