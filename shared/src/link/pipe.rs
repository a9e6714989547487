//! The bounded queue of one direction of one connection.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

/// An error that can be told more than once, which [`io::Error`] cannot.
#[derive(Clone, Debug)]
struct Failure(io::ErrorKind, String);

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

/// Bytes with an instant (ns): when they were accepted (up) or arrive (down).
#[derive(Debug)]
struct Chunk {
    at: u64,
    bytes: Bytes,
}

/// Holds the bytes between a stream and its pump, and tells each side about the
/// other's end. It is bounded by bytes, and what was taken counts until released:
/// bytes in the air take up room as well.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Chunk>,
    /// Bytes pushed and not yet released.
    held: usize,
    /// No more will be pushed, from this instant on, for this reason.
    finished: Option<(u64, Result<(), Failure>)>,
    /// No more will be taken: everything got through, or something broke.
    closed: Option<Result<(), Failure>>,
    taker: Option<Waker>,
    pusher: Option<Waker>,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that may be pushed, at least one; waits while the pipe is full.
    pub(super) fn poll_room(&self, cx: &Context<'_>, capacity: usize) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        match &state.closed {
            Some(Err(failure)) => return Poll::Ready(Err(failure.into())),
            Some(Ok(())) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            None if state.finished.is_some() => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            None => {}
        }
        match capacity.saturating_sub(state.held) {
            0 => {
                state.pusher = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    pub(super) fn push(&self, bytes: Bytes, at: u64) {
        let mut state = self.state();
        state.held += bytes.len();
        state.chunks.push_back(Chunk { at, bytes });
        wake(state, |state| &mut state.taker);
    }

    /// Says that no more follows; only the first call counts.
    pub(super) fn finish(&self, at: u64, outcome: Result<(), &io::Error>) {
        let mut state = self.state();
        if state.finished.is_none() {
            state.finished = Some((at, outcome.map_err(Failure::from)));
            wake(state, |state| &mut state.taker);
        }
    }

    /// The next bytes, at most `limit`, with their instant; no bytes: the end.
    /// They count as held until released.
    pub(super) fn poll_take(&self, cx: &Context<'_>, limit: usize) -> Poll<(u64, Option<Bytes>)> {
        let mut state = self.state();
        let Some(front) = state.chunks.front_mut() else {
            return match state.finished {
                Some((at, _)) => Poll::Ready((at, None)),
                None => {
                    state.taker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let at = front.at;
        if front.bytes.len() > limit {
            return Poll::Ready((at, Some(front.bytes.split_to(limit))));
        }
        Poll::Ready((at, state.chunks.pop_front().map(|chunk| chunk.bytes)))
    }

    /// The instant of the next bytes, or of the end if there are none.
    pub(super) fn poll_next_at(&self, cx: &Context<'_>) -> Poll<u64> {
        let mut state = self.state();
        let front = state.chunks.front().map(|chunk| chunk.at);
        if let Some(at) = front.or(state.finished.as_ref().map(|(at, _)| *at)) {
            return Poll::Ready(at);
        }
        state.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Copies out and releases whatever `is_due` and fits. Nothing due is the end
    /// of the stream, so the caller asks [`Pipe::poll_next_at`] first.
    pub(super) fn read_due(
        &self,
        out: &mut ReadBuf<'_>,
        is_due: impl Fn(u64) -> bool,
    ) -> io::Result<()> {
        let mut state = self.state();
        let mut copied = 0;
        while out.remaining() > 0 {
            let Some(front) = state.chunks.front_mut().filter(|front| is_due(front.at)) else {
                break;
            };
            let n = front.bytes.len().min(out.remaining());
            out.put_slice(&front.bytes[..n]);
            front.bytes.advance(n);
            copied += n;
            if front.bytes.is_empty() {
                state.chunks.pop_front();
            }
        }
        if let (0, true, Some((_, Err(failure)))) =
            (copied, state.chunks.is_empty(), &state.finished)
        {
            return Err(failure.into());
        }
        state.held -= copied;
        wake(state, |state| &mut state.pusher);
        Ok(())
    }

    /// Bytes pushed and not yet released.
    pub(super) fn held(&self) -> usize {
        self.state().held
    }

    /// Makes room again for taken bytes that are through.
    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.state();
        state.held -= bytes;
        wake(state, |state| &mut state.pusher);
    }

    /// Waits for the other side to be done with everything pushed.
    pub(super) fn poll_closed(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        match &state.closed {
            Some(outcome) => Poll::Ready(outcome.as_ref().copied().map_err(io::Error::from)),
            None => {
                state.pusher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Says that no more will be taken; only the first call counts.
    pub(super) fn close(&self, outcome: Result<(), &io::Error>) {
        let mut state = self.state();
        if state.closed.is_none() {
            state.closed = Some(outcome.map_err(Failure::from));
            wake(state, |state| &mut state.pusher);
        }
    }

    /// What the consumer's failure was, if it failed.
    pub(super) fn check_open(&self) -> io::Result<()> {
        match &self.state().closed {
            Some(Err(failure)) => Err(failure.into()),
            _ => Ok(()),
        }
    }
}

/// Wakes one side, after unlocking, so that it does not run into the lock.
fn wake(mut state: MutexGuard<'_, State>, side: fn(&mut State) -> &mut Option<Waker>) {
    let waker = side(&mut state).take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
