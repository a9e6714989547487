//! One direction of one connection: a TCP sender, its bytes, and what has arrived of them.

use std::{collections::VecDeque, io, task::Waker};

use bytes::Bytes;

use super::{
    packet::{AckPacket, FlowId},
    receiver::{Answer, Arrived, Receiver},
    repair::{Clock, Repair, Seen, Sent, Verdict},
    window::{Ack, Out, Window},
};

/// Least bytes that may be on the way before the reader has taken them (Linux' tcp_rmem maximum).
const MIN_RECEIVE_WINDOW: u64 = 6 << 20;
/// Least bytes that a writer may be ahead of the acknowledgements.
const MIN_SEND_BUFFER: u64 = 256 << 10;
const MAX_SEND_BUFFER: u64 = 64 << 20;

/// What a packet takes in memory beside its payload; and the part of a second's sending that may be in the
/// host's queue (sk_pacing_shift).
const PACKET_MEMORY: u32 = 1280;
const SMALL_QUEUE_SHIFT: u32 = 10;

/// An error that can be told more than once, which [`io::Error`] cannot.
#[derive(Clone, Debug)]
pub struct Failure(io::ErrorKind, String);

impl From<&io::Error> for Failure {
    fn from(error: &io::Error) -> Self {
        Self(error.kind(), error.to_string())
    }
}

impl From<&Failure> for io::Error {
    fn from(failure: &Failure) -> Self {
        io::Error::new(failure.0, failure.1.clone())
    }
}

/// What a reader finds.
#[derive(Debug)]
pub enum Taken {
    Bytes(Bytes),
    End,
    Failed(Failure),
    /// Nothing has arrived since.
    Nothing,
}

/// A stretch of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    pub(super) start: u64,
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) device: usize,
    /// Payload of a full packet, bytes.
    mss: u32,
    /// None: the window is always open, and the link's queue pushes back.
    pub(super) window: Option<Window>,
    send_buffer: u64,
    receive_window: u64,
    /// The handshake is through.
    pub(super) established: bool,

    /// Written and not yet taken; the first byte has the offset `taken`.
    buffer: VecDeque<Bytes>,
    written: u64,
    finished: Option<Result<(), Failure>>,

    sent: u64,
    /// Packets sent so far, repetitions included.
    packets: u64,
    last_sent: Stretch,
    acked: u64,
    delivered_seen: u64,
    /// When it last sent something.
    sent_at: u64,
    /// When the last acknowledgement was sent, and how far it lets the sender go.
    stamp: u64,
    window_end: u64,
    /// What it has in its host's queue, bytes of memory, in which round of the host's work.
    queued: (u64, u64),
    pub(super) repair: Repair,
    /// In a lane's list of senders that wait for room.
    pub(super) waiting: bool,

    receiver: Receiver,
    taken: u64,

    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// Why the receiving side takes no more, once it does not.
    closed: Option<Result<(), Failure>>,
}

impl Flow {
    /// `pipe`: bytes that fill the link's delay and queue.
    pub(super) fn new(device: usize, mss: u32, window: Option<Window>, pipe: u64) -> Self {
        Self {
            device,
            mss,
            window,
            send_buffer: (2 * pipe).clamp(MIN_SEND_BUFFER, MAX_SEND_BUFFER),
            receive_window: (2 * pipe).max(MIN_RECEIVE_WINDOW),
            established: false,
            buffer: VecDeque::new(),
            written: 0,
            finished: None,
            sent: 0,
            packets: 0,
            last_sent: Stretch::default(),
            acked: 0,
            delivered_seen: 0,
            sent_at: 0,
            stamp: 0,
            window_end: u64::MAX,
            queued: (0, 0),
            repair: Repair::new(mss),
            waiting: false,
            receiver: Receiver::new(mss, (2 * pipe).max(MIN_RECEIVE_WINDOW)),
            taken: 0,
            reader: None,
            writer: None,
            closed: None,
        }
    }

    /// Bytes that may be written now.
    pub(super) fn room(&self) -> io::Result<usize> {
        match &self.closed {
            Some(Err(failure)) => return Err(failure.into()),
            Some(Ok(())) => return Err(io::ErrorKind::BrokenPipe.into()),
            None if self.finished.is_some() => return Err(io::ErrorKind::BrokenPipe.into()),
            None => {}
        }
        let ahead = self.written - self.acked.min(self.written);
        Ok(self.send_buffer.saturating_sub(ahead) as usize)
    }

    pub(super) fn write(&mut self, bytes: Bytes) {
        self.written += bytes.len() as u64;
        self.buffer.push_back(bytes);
    }

    /// Says that no more follows; only the first call counts.
    pub(super) fn finish(&mut self, outcome: Result<(), Failure>) {
        self.finished.get_or_insert(outcome);
    }

    /// The reader is gone, or has everything; only the first call counts.
    pub(super) fn close(&mut self, outcome: Result<(), Failure>) {
        self.closed.get_or_insert(outcome);
    }

    pub(super) fn closed(&self) -> Option<&Result<(), Failure>> {
        self.closed.as_ref()
    }

    /// Written and not yet taken.
    pub(super) fn held(&self) -> u64 {
        self.written - self.taken
    }

    pub(super) fn smoothed_rtt(&self) -> u64 {
        self.window.as_ref().map_or(0, Window::smoothed_rtt)
    }

    // ── the sender ──

    /// The stretch to send next, if the windows allow one.
    pub(super) fn next_to_send(&mut self) -> Option<Stretch> {
        if !self.established {
            return None;
        }
        let stretch = match self.repair.resend.front() {
            Some(&stretch) => stretch,
            None => self.fresh_stretch()?,
        };
        let length = stretch.end - stretch.start;
        let Some(window) = self.window.as_ref().filter(|_| self.repair.flight > 0) else {
            return Some(stretch);
        };
        let allowed = match self.repair.allowance() {
            Some(allowance) => length <= allowance,
            None => self.repair.flight + length <= window.segments() * u64::from(self.mss),
        };
        (allowed || self.repair.probing).then_some(stretch)
    }

    /// What has not been sent yet, at most a full packet of it.
    fn fresh_stretch(&self) -> Option<Stretch> {
        // The end of the stream takes one position, as TCP's FIN does.
        let end = self.written + u64::from(self.finished.is_some());
        let stop = end.min(self.taken + self.receive_window).min(self.window_end);
        let stretch = Stretch { start: self.sent, end: stop.min(self.sent + u64::from(self.mss)) };
        (stretch.end > stretch.start).then_some(stretch)
    }

    /// When the acknowledgement was sent that the sender has heard last.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The place of the next packet in the order of sending; the first is 1.
    pub(super) fn next_order(&self) -> u64 {
        self.packets + 1
    }

    /// `stretch` was given to the link's queue, which had no room for it if `dropped`.
    pub(super) fn sent(&mut self, stretch: Stretch, now: u64, dropped: bool) {
        if self.repair.flight == 0
            && self.packets > 0
            && let Some(window) = &mut self.window
        {
            window.after_idle(self.sent_at, now);
        }
        self.packets += 1;
        self.sent_at = now;
        self.repair.sent(Sent { stretch, order: self.packets, dropped }, self.acked, now);
        if stretch.end > self.sent {
            (self.sent, self.last_sent) = (stretch.end, stretch);
        }
    }

    /// An acknowledgement has come back.
    pub(super) fn acknowledged(&mut self, ack: &AckPacket, sent_at: u64, now: u64) {
        (self.stamp, self.window_end) = (sent_at, ack.window_end);
        let seen = Seen {
            next: ack.next,
            delivered: ack.delivered,
            latest: ack.latest,
            fresh: ack.delivered.saturating_sub(self.delivered_seen),
            advanced: ack.next > self.acked,
            round_trip: now.saturating_sub(ack.echo),
        };
        self.delivered_seen += seen.fresh;
        self.acked = self.acked.max(ack.next);
        let Some(clock) = self.clock(now) else { return };
        let verdict = self.repair.acknowledged(&seen, clock);
        if verdict == Verdict::Lost {
            self.lost(Some(&seen));
        }
        // What is only known to have passed a hole opens no window.
        let grows = seen.advanced && self.repair.window_may_grow();
        let out = self.packets_out();
        if seen.fresh > 0
            && let Some(window) = &mut self.window
        {
            window.on_ack(Ack {
                now,
                segments: if grows { seen.fresh.div_ceil(u64::from(self.mss)) } else { 0 },
                rtt_ns: seen.round_trip,
                acked: ack.next,
                sent: self.sent,
                out,
            });
        }
    }

    /// Whether one more packet may enter the host's queue in this round; counts it.
    pub(super) fn may_queue(&mut self, round: u64) -> bool {
        let Some(window) = &self.window else { return true };
        let packet = u64::from(self.mss + PACKET_MEMORY);
        let most = (window.pacing_rate(self.packets_out()) >> SMALL_QUEUE_SHIFT).max(2 * packet);
        if self.queued.0 != round {
            self.queued = (round, 0);
        }
        if self.queued.1 > most {
            return false;
        }
        self.queued.1 += packet;
        true
    }

    /// The sender has had its turn: whether its window held it up.
    pub(super) fn had_turn(&mut self) {
        let out = Out {
            flight: self.repair.flight.div_ceil(u64::from(self.mss)),
            segments: self.packets_out(),
            acked: self.acked,
            sent: self.sent,
        };
        if let Some(window) = &mut self.window {
            window.used(out);
        }
    }

    fn lost(&mut self, seen: Option<&Seen>) {
        if let Some(window) = &mut self.window {
            let prior = window.segments();
            window.on_loss();
            self.repair.recover(self.sent, prior, window.segments(), seen);
        }
    }

    fn clock(&self, now: u64) -> Option<Clock> {
        self.window.as_ref().map(|window| window.clock(now))
    }

    fn packets_out(&self) -> u64 {
        (self.sent - self.acked.min(self.sent)).div_ceil(u64::from(self.mss))
    }

    /// When the sender will act if it hears nothing.
    pub(super) fn deadline(&self, now: u64) -> Option<u64> {
        self.repair.deadline(self.packets_out(), self.clock(now)?)
    }

    /// A timer has run out, perhaps of a deadline that has moved.
    pub(super) fn timed_out(&mut self, now: u64) {
        let Some(clock) = self.clock(now) else { return };
        match self.repair.timed_out(self.packets_out(), clock) {
            Verdict::Nothing => {}
            Verdict::Lost => self.lost(None),
            Verdict::Probe if self.fresh_stretch().is_some() => {}
            Verdict::Probe => self.repair.resend_last(self.last_sent),
            Verdict::TimedOut => {
                if let Some(window) = &mut self.window {
                    window.on_timeout();
                }
                self.repair.start_over(self.sent);
            }
        }
    }

    // ── the receiver ──

    /// A packet has arrived. True if there is something new to read; and what becomes of its
    /// acknowledgement.
    pub(super) fn arrived(&mut self, id: FlowId, packet: &Arrived, now: u64) -> (bool, Answer) {
        let before = self.receiver.next;
        let filled = self.receiver.arrived(packet, now);
        let answer = match &self.window {
            Some(window) => self.receiver.answer(id, packet, filled, window.clock(now).least, now),
            // Nobody answers: the sender knows at once.
            None => {
                self.acked = self.receiver.next;
                Answer::None
            }
        };
        (self.receiver.next > before, answer)
    }

    /// The acknowledgement that was held back until now, if it still is.
    pub(super) fn late_answer(&mut self, id: FlowId, now: u64) -> Option<AckPacket> {
        self.receiver.late(id, now)
    }

    /// The acknowledgement that data of the reverse flow takes along.
    pub(super) fn ride_along(&mut self, id: FlowId, now: u64) -> Option<AckPacket> {
        self.receiver.ride_along(id, now)
    }

    /// Bytes that are there; neither repetitions nor the stream's end are counted.
    pub(super) fn delivered(&self) -> u64 {
        self.receiver.delivered - u64::from(self.receiver.highest > self.written)
    }

    /// Whether a reader would find something.
    pub(super) fn readable(&self) -> bool {
        self.receiver.next > self.taken
    }

    /// Takes what has arrived, at most `limit` bytes.
    pub(super) fn take(&mut self, limit: usize) -> Taken {
        let ready = self.receiver.next.min(self.written) - self.taken.min(self.written);
        if ready > 0
            && let Some(front) = self.buffer.front_mut()
        {
            let whole = front.len() as u64;
            let length = whole.min(ready).min(limit as u64) as usize;
            self.taken += length as u64;
            return Taken::Bytes(if length as u64 == whole {
                self.buffer.pop_front().unwrap_or_default()
            } else {
                front.split_to(length)
            });
        }
        match &self.finished {
            Some(outcome) if self.receiver.next > self.written => match outcome {
                Ok(()) => Taken::End,
                Err(failure) => Taken::Failed(failure.clone()),
            },
            _ => Taken::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::profile::Transport;

    #[test]
    fn a_host_takes_a_few_packets_of_a_sender_in_one_round() {
        let mss = 1_448;
        let transport =
            Transport::Tcp { initial_window: 10, handshake: true, slow_start_after_idle: true };
        let mut flow = Flow::new(0, mss, Window::new(&transport, mss), 1 << 20);
        let taken = |flow: &mut Flow, round| (0..100).take_while(|_| flow.may_queue(round)).count();
        // Nothing is known of the round trip: no bound.
        assert_eq!(taken(&mut flow, 1), 100);
        flow.write(Bytes::from(vec![0; 10 * mss as usize]));
        flow.established = true;
        while let Some(stretch) = flow.next_to_send() {
            flow.sent(stretch, 0, false);
        }
        let next = u64::from(mss);
        let ack = AckPacket {
            flow: FlowId(0),
            next,
            latest: 1,
            delivered: next,
            window_end: 1 << 20,
            echo: 0,
        };
        flow.acknowledged(&ack, 0, 10_000_000);
        // 11 segments in 10 ms, twice that in slow start: 3.1 KB in a thousandth of a second. Two packets
        // with their memory are more than that; the one that goes beyond is let in.
        assert_eq!(taken(&mut flow, 2), 3);
        assert_eq!(taken(&mut flow, 2), 0);
        assert_eq!(taken(&mut flow, 3), 3, "the queue is empty again");
    }
}
