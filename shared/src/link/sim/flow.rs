//! One direction of one connection: a TCP sender, its bytes, and what has arrived of them.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    task::Waker,
};

use bytes::Bytes;

use super::{
    packet::AckPacket,
    window::{Ack, Window},
};

/// A hole counts as lost when this many segments beyond it have arrived (RFC 6675's DupThresh).
const DUP_THRESH: u64 = 3;
/// So many packets the receiver of a new connection answers one by one (Linux' quick acks), so that the
/// sender's window opens sooner.
const QUICK_ANSWERS: u8 = 16;
/// Least bytes that may be on the way before the reader has taken them (Linux' tcp_rmem maximum).
const MIN_RECEIVE_WINDOW: u64 = 6 << 20;
/// Least bytes that a writer may be ahead of the acknowledgements.
const MIN_SEND_BUFFER: u64 = 256 << 10;
const MAX_SEND_BUFFER: u64 = 64 << 20;

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

/// A loss that is being repaired.
#[derive(Clone, Copy, Debug, Default)]
struct Recovery {
    /// Over when this offset is acknowledged.
    until: u64,
    /// The window to come down to, and what was in flight at the beginning, bytes.
    target: u64,
    from: u64,
    /// Since the beginning, bytes.
    delivered: u64,
    sent: u64,
    /// May be sent now, bytes.
    allowance: u64,
}

/// What becomes of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Now(AckPacket),
    /// Held back; a timer is to be set.
    Later,
    None,
}

/// A stretch of a flow.
#[derive(Clone, Copy, Debug)]
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
    acked: u64,
    delivered_seen: u64,
    flight: u64,
    /// Dropped at the queue, not yet noticed by the sender; with the offset beyond which an arrival
    /// shows it.
    lost: VecDeque<(Stretch, u64)>,
    resend: VecDeque<Stretch>,
    recovery: Recovery,
    last_heard: u64,
    pub(super) timer_set: bool,
    /// In a lane's list of senders that wait for room.
    pub(super) waiting: bool,

    next: u64,
    highest: u64,
    delivered: u64,
    islands: BTreeMap<u64, u64>,
    unanswered: u8,
    quick_answers: u8,
    /// `at` of the packet that has not been answered, while an answer is held back.
    held_answer: Option<u64>,
    /// The receiver has sent data of its own: it will again, and its answers can ride along.
    interactive: bool,
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
            acked: 0,
            delivered_seen: 0,
            flight: 0,
            lost: VecDeque::new(),
            resend: VecDeque::new(),
            recovery: Recovery::default(),
            last_heard: 0,
            timer_set: false,
            waiting: false,
            next: 0,
            highest: 0,
            delivered: 0,
            islands: BTreeMap::new(),
            unanswered: 0,
            quick_answers: QUICK_ANSWERS,
            held_answer: None,
            interactive: false,
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
        let stretch = match self.resend.front() {
            Some(&stretch) => stretch,
            None => {
                // The end of the stream takes one position, as TCP's FIN does.
                let end = self.written + u64::from(self.finished.is_some());
                let stop = end.min(self.taken + self.receive_window);
                let stretch =
                    Stretch { start: self.sent, end: stop.min(self.sent + u64::from(self.mss)) };
                if stretch.end <= stretch.start {
                    return None;
                }
                stretch
            }
        };
        let length = stretch.end - stretch.start;
        match &self.window {
            Some(_) if self.flight > 0 && self.is_recovering() => {
                (length <= self.recovery.allowance).then_some(stretch)
            }
            Some(window) if self.flight > 0 => {
                let allowed = window.segments() * f64::from(self.mss);
                ((self.flight + length) as f64 <= allowed).then_some(stretch)
            }
            _ => Some(stretch),
        }
    }

    /// `stretch` was given to the link's queue, which had no room for it if `dropped`.
    pub(super) fn sent(&mut self, stretch: Stretch, now: u64, dropped: bool) {
        if self.flight == 0
            && self.last_heard > 0
            && let Some(window) = &mut self.window
        {
            window.after_idle(self.last_heard, now);
        }
        if self.resend.front().is_some_and(|first| first.start == stretch.start) {
            self.resend.pop_front();
        }
        let length = stretch.end - stretch.start;
        self.recovery.allowance = self.recovery.allowance.saturating_sub(length);
        self.recovery.sent += length;
        self.sent = self.sent.max(stretch.end);
        self.flight += length;
        if dropped {
            // What was sent again is missed only when something sent after it has arrived.
            self.lost.push_back((stretch, self.sent));
        }
    }

    /// An acknowledgement has come back.
    pub(super) fn acknowledged(&mut self, ack: &AckPacket, now: u64) {
        let fresh = ack.delivered.saturating_sub(self.delivered_seen);
        let before = self.flight;
        self.delivered_seen += fresh;
        self.flight = self.flight.saturating_sub(fresh);
        self.acked = self.acked.max(ack.next);
        self.last_heard = now;
        let reach = DUP_THRESH * u64::from(self.mss);
        while self.lost.front().is_some_and(|(_, beyond)| beyond + reach <= ack.highest) {
            self.notice_loss();
        }
        if self.is_recovering() {
            self.recover(fresh);
            return;
        }
        let mss = f64::from(self.mss);
        if let Some(window) = &mut self.window {
            window.on_ack(Ack {
                now,
                segments: fresh as f64 / mss,
                rtt_ns: now.saturating_sub(ack.echo),
                acked: ack.next,
                sent: self.sent,
                flight: before as f64 / mss,
            });
        }
    }

    /// The first dropped stretch is missed: it goes out again, and the window shrinks once a flight.
    fn notice_loss(&mut self) {
        let Some((hole, _)) = self.lost.pop_front() else { return };
        if !self.is_recovering()
            && let Some(window) = &mut self.window
        {
            window.on_loss();
            let target = (window.segments() * f64::from(self.mss)) as u64;
            // The first one goes out at once.
            let allowance = u64::from(self.mss);
            let from = self.flight.max(1);
            self.recovery =
                Recovery { until: self.sent, target, from, delivered: 0, sent: 0, allowance };
        }
        self.flight = self.flight.saturating_sub(hole.end - hole.start);
        self.resend.push_back(hole);
    }

    fn is_recovering(&self) -> bool {
        self.acked < self.recovery.until
    }

    /// Proportional rate reduction (RFC 6937 section 3.1): what may be sent for `fresh` delivered bytes,
    /// so that what is sent again does not hit the full queue in one burst.
    fn recover(&mut self, fresh: u64) {
        let recovery = &mut self.recovery;
        recovery.delivered += fresh;
        recovery.allowance = if self.flight > recovery.target {
            let share = u128::from(recovery.delivered) * u128::from(recovery.target);
            let due = share.div_ceil(u128::from(recovery.from)) as u64;
            due.saturating_sub(recovery.sent)
        } else {
            let caught_up = recovery.delivered.saturating_sub(recovery.sent).max(fresh);
            (caught_up + u64::from(self.mss)).min(recovery.target - self.flight)
        };
    }

    /// When the sender gives up waiting for acknowledgements of what was dropped.
    pub(super) fn deadline(&self, now: u64) -> Option<u64> {
        let window = self.window.as_ref().filter(|_| !self.lost.is_empty())?;
        Some(now.saturating_add(window.probe_timeout()))
    }

    /// No acknowledgement showed the holes in time. True if there was one.
    pub(super) fn timed_out(&mut self, now: u64) -> bool {
        let Some(window) = &self.window else { return false };
        if self.lost.is_empty() || now < self.last_heard.saturating_add(window.probe_timeout()) {
            return !self.lost.is_empty();
        }
        self.last_heard = now;
        while !self.lost.is_empty() {
            self.notice_loss();
        }
        self.recovery.allowance = self.recovery.allowance.max(u64::from(self.mss));
        true
    }

    // ── the receiver ──

    /// A stretch has arrived. True if there is something new to read.
    pub(super) fn arrived(&mut self, stretch: Stretch) -> bool {
        let before = self.next;
        self.highest = self.highest.max(stretch.end);
        if stretch.start > self.next {
            if self.islands.insert(stretch.start, stretch.end).is_none() {
                self.delivered += stretch.end - stretch.start;
            }
        } else if stretch.end > self.next {
            self.delivered += stretch.end - self.next;
            self.next = stretch.end;
            while let Some(island) = self.islands.first_entry()
                && *island.key() <= self.next
            {
                self.next = self.next.max(island.remove());
            }
        }
        match self.window {
            Some(_) => self.unanswered = self.unanswered.saturating_add(1),
            // Nobody answers: the sender knows at once.
            None => self.acked = self.next,
        }
        self.next > before
    }

    /// What the receiver does about the acknowledgement of the packet that was offered at `echo`: for
    /// each of the first packets (unless the receiver sends data itself), then for every second, and for
    /// a hole it goes out now; otherwise it is held back (RFC 5681 section 4.2).
    pub(super) fn answer(&mut self, flow: super::FlowId, echo: u64) -> Answer {
        if self.window.is_none() {
            return Answer::None;
        }
        let quick = self.quick_answers > 0 && !self.interactive;
        if self.unanswered >= 2 || !self.islands.is_empty() || quick {
            self.quick_answers = self.quick_answers.saturating_sub(1);
            return Answer::Now(self.ack(flow, echo));
        }
        let waits = self.held_answer.is_none();
        self.held_answer = Some(echo);
        if waits { Answer::Later } else { Answer::None }
    }

    /// The acknowledgement that was held back, if it still is: it goes now, alone or with data.
    pub(super) fn held_answer(&mut self, flow: super::FlowId) -> Option<AckPacket> {
        let echo = self.held_answer?;
        Some(self.ack(flow, echo))
    }

    fn ack(&mut self, flow: super::FlowId, echo: u64) -> AckPacket {
        self.unanswered = 0;
        self.held_answer = None;
        let (next, highest, delivered) = (self.next, self.highest, self.delivered);
        AckPacket { flow, next, highest, delivered, echo }
    }

    /// The receiver has sent data.
    pub(super) fn set_interactive(&mut self) {
        self.interactive = true;
    }

    /// Bytes that are there; neither repetitions nor the stream's end are counted.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered - u64::from(self.highest > self.written)
    }

    /// Whether a reader would find something.
    pub(super) fn readable(&self) -> bool {
        self.next > self.taken
    }

    /// Takes what has arrived, at most `limit` bytes.
    pub(super) fn take(&mut self, limit: usize) -> Taken {
        let ready = self.next.min(self.written) - self.taken.min(self.written);
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
            Some(outcome) if self.next > self.written => match outcome {
                Ok(()) => Taken::End,
                Err(failure) => Taken::Failed(failure.clone()),
            },
            _ => Taken::Nothing,
        }
    }
}
