//! The two tasks of a connection that move its bytes on time.
//!
//! Both offer the schedule at most one [`CHUNK`] at a time, and the next one only
//! shortly before their last one is through. So connections take turns on the
//! link, and a short request waits behind a chunk of each other, not behind a
//! whole queue.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::clock::Alarm;
use super::pipe::Pipe;
use super::radio::Radio;

/// Most bytes booked on the link at once by one connection.
const CHUNK: usize = 16 * 1024;
/// Bytes allocated at once for reading.
const BLOCK: usize = 4 * CHUNK;
/// How long before its last chunk is through a connection may book the next, ns:
/// enough that a late wake-up leaves no gap on the link.
const LOOKAHEAD_NS: u64 = 2_000_000;

/// Ends a pipe on both sides when its pump is gone for whatever reason (also a
/// dropped runtime), so that no stream waits for it for ever.
pub(super) struct HangUp(pub(super) Arc<Pipe>);

impl Drop for HangUp {
    fn drop(&mut self) {
        let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the link's pump is gone");
        self.0.finish(0, Err(&gone));
        self.0.close(Err(&gone));
    }
}

/// Takes bytes from the pipe, lets them travel, and writes them to the socket;
/// ends once the pipe has ended and the socket's write side is shut down.
pub(super) async fn uplink<W: AsyncWrite + Unpin>(
    mut io: W,
    pipe: Arc<Pipe>,
    radio: Arc<Radio>,
) -> io::Result<()> {
    let mut flight = Flight::new(Arc::clone(&pipe), radio);
    while let Some(bytes) = poll_fn(|cx| flight.poll_landed(cx)).await {
        io.write_all(&bytes).await?;
        io.flush().await?;
        pipe.release(bytes.len());
    }
    io.shutdown().await
}

/// The bytes of one connection that are on the link, in order, and the next to go.
struct Flight {
    pipe: Arc<Pipe>,
    radio: Arc<Radio>,
    alarm: Alarm,
    /// Arrival (ns) and bytes; no bytes: the end of the stream.
    aloft: VecDeque<(u64, Option<Bytes>)>,
    /// When the next chunk may be booked, ns.
    gate: u64,
    ended: bool,
}

impl Flight {
    fn new(pipe: Arc<Pipe>, radio: Arc<Radio>) -> Self {
        let (alarm, aloft) = (Alarm::default(), VecDeque::new());
        Self { pipe, radio, alarm, aloft, gate: 0, ended: false }
    }

    /// The next bytes whose time has come; none after the last.
    fn poll_landed(&mut self, cx: &Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            self.book(cx);
            let clock = self.radio.clock();
            let landing = self.aloft.front().map(|(at, _)| *at);
            if landing.is_some_and(|at| clock.is_due(at)) {
                return Poll::Ready(self.aloft.pop_front().and_then(|(_, bytes)| bytes));
            }
            let gate = (!self.ended && !clock.is_due(self.gate)).then_some(self.gate);
            let Some(at) = landing.into_iter().chain(gate).min() else {
                return Poll::Pending;
            };
            if self.alarm.poll(cx, clock, at).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Books chunks while it is this connection's turn, as of when they were
    /// accepted: being late here costs the link nothing.
    fn book(&mut self, cx: &Context<'_>) {
        while !self.ended && self.radio.clock().is_due(self.gate) {
            let Poll::Ready((accepted, bytes)) = self.pipe.poll_take(cx, CHUNK) else {
                return;
            };
            let slot = self.radio.uplink.send(accepted, bytes.as_ref().map_or(0, Bytes::len));
            self.gate = slot.sent.saturating_sub(LOOKAHEAD_NS);
            self.ended = bytes.is_none();
            self.aloft.push_back((slot.arrives, bytes));
        }
    }
}

/// Reads from the socket while there is room, and puts the bytes into the pipe
/// with the instant at which they arrive; ends with the socket's read side.
pub(super) async fn downlink<R: AsyncRead + Unpin>(
    mut io: R,
    pipe: Arc<Pipe>,
    radio: Arc<Radio>,
) -> io::Result<()> {
    let clock = radio.clock();
    let mut alarm = Alarm::default();
    let mut block = BytesMut::new();
    // When the next chunk may be booked, and until when this task last slept for it.
    let (mut gate, mut slept_until) = (clock.now(), 0);
    loop {
        let room = poll_fn(|cx| pipe.poll_room(cx, radio.downlink.capacity()));
        let (room, was_full) = noting_wait(room).await;
        let room_since = if was_full { clock.now() } else { 0 };
        let ((), slept) = noting_wait(poll_fn(|cx| alarm.poll(cx, clock, gate))).await;
        if slept {
            slept_until = clock.now();
        }
        if block.capacity() < CHUNK {
            block = BytesMut::with_capacity(BLOCK);
        }
        let mut space = (&mut block).limit(room?.min(CHUNK));
        let (read, was_empty) = noting_wait(io.read_buf(&mut space)).await;
        // Bytes that waited in the socket because this task overslept are booked
        // as of when it should have woken, so that oversleeping costs nothing.
        let overslept = !was_empty && gate < slept_until;
        let ready = if overslept { gate.max(room_since) } else { clock.now() };
        let slot = radio.downlink.send(ready, *read.as_ref().unwrap_or(&0));
        gate = slot.sent.saturating_sub(LOOKAHEAD_NS);
        match read {
            Ok(0) => {
                pipe.finish(slot.arrives, Ok(()));
                return Ok(());
            }
            Ok(_) => pipe.push(block.split().freeze(), slot.arrives),
            Err(error) => {
                pipe.finish(slot.arrives, Err(&error));
                return Err(error);
            }
        }
    }
}

/// Runs `work`, and says whether it had to wait.
async fn noting_wait<F: Future>(work: F) -> (F::Output, bool) {
    let mut work = pin!(work);
    let mut waited = false;
    let output = poll_fn(|cx| {
        let poll = work.as_mut().poll(cx);
        waited |= poll.is_pending();
        poll
    });
    let output = output.await;
    (output, waited)
}
