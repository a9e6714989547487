//! A connection through the radio.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::clock::Alarm;
use super::pipe::Pipe;
use super::pump::{self, HangUp};
use super::radio::Radio;

/// How long a dropped stream's bytes may make no progress at a peer that does not
/// read, before they are given up.
const LINGER: Duration = Duration::from_secs(30);

/// Looks like the connection it wraps, but its bytes travel over the radio.
///
/// A write is accepted at once, as by a socket buffer, up to the bytes that fill
/// the link; it reaches the socket when it is due, whether or not anyone polls. A
/// read returns the bytes that have arrived by now. Shutdown and end of stream
/// travel behind the bytes before them. On an ideal network calls go straight to
/// the inner stream, until [`Link::set_profile`](super::Link::set_profile) puts the
/// radio on another one.
///
/// Each byte is copied once per direction: on a write from the caller's buffer into
/// a [`Bytes`] that then moves to the socket; on a read from the [`Bytes`] that the
/// socket was read into to the caller's buffer.
///
/// Dropping it ends its tasks: the reading one at once, the writing one when what
/// was written has been delivered (or the peer has taken none of it for too long),
/// as the kernel does for a closed socket.
#[derive(Debug)]
pub struct LinkStream<S> {
    radio: Arc<Radio>,
    path: Path<S>,
}

#[derive(Debug)]
enum Path<S> {
    /// The network is ideal (so far): nothing in between.
    Direct(S),
    /// The socket is with the pumps.
    Shaped(Shaped),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LinkStream<S> {
    pub(super) fn new(io: S, radio: Arc<Radio>) -> Self {
        radio.meter.count_connection();
        let mut stream = Self { radio, path: Path::Direct(io) };
        stream.path();
        stream
    }

    /// Where bytes go now. A direct stream on a network that is no longer ideal has
    /// nothing queued, so its socket can be handed to pumps at any poll.
    fn path(&mut self) -> &mut Path<S> {
        if matches!(self.path, Path::Direct(_)) && !self.radio.is_ideal() {
            let (shaped, abandoned) = Shaped::new();
            if let Path::Direct(io) = mem::replace(&mut self.path, Path::Shaped(shaped))
                && let Path::Shaped(shaped) = &mut self.path
            {
                shaped.start(io, abandoned, &self.radio);
            }
        }
        &mut self.path
    }
}

/// The caller's ends of the two pipes.
#[derive(Debug)]
struct Shaped {
    up: Arc<Pipe>,
    down: Arc<Pipe>,
    arrival: Alarm,
    reading: Option<AbortHandle>,
    /// Dropped with the stream, which tells the writing task to linger no longer
    /// than it has to.
    _present: oneshot::Sender<()>,
}

impl Shaped {
    fn new() -> (Self, oneshot::Receiver<()>) {
        let (present, abandoned) = oneshot::channel();
        let (up, down) = Default::default();
        let shaped = Self { up, down, arrival: Alarm::default(), reading: None, _present: present };
        (shaped, abandoned)
    }

    fn start<S>(&mut self, io: S, abandoned: oneshot::Receiver<()>, radio: &Arc<Radio>)
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let hang_up = HangUp(Arc::clone(&self.down));
        let work = pump::downlink(read, Arc::clone(&self.down), Arc::clone(radio));
        let reading = tokio::spawn(async move {
            let _hang_up = hang_up;
            // The reader hears of an error through the pipe, when it arrives.
            work.await.ok();
        });
        self.reading = Some(reading.abort_handle());

        let hang_up = HangUp(Arc::clone(&self.up));
        let work = pump::uplink(write, Arc::clone(&self.up), Arc::clone(radio));
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = stuck(&hang_up.0, abandoned) => Err(io::ErrorKind::TimedOut.into()),
            };
            hang_up.0.close(outcome.as_ref().copied());
        });
    }

    fn poll_read(
        &mut self,
        cx: &Context<'_>,
        radio: &Radio,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = ready!(self.down.poll_next_at(cx));
        ready!(self.arrival.poll(cx, radio.clock(), at));
        Poll::Ready(self.down.read_due(out, |at| radio.clock().is_due(at)))
    }

    /// Accepts the bytes that `gather` makes of the room there is.
    fn poll_write(
        &self,
        cx: &Context<'_>,
        radio: &Radio,
        gather: impl FnOnce(usize) -> Bytes,
    ) -> Poll<io::Result<usize>> {
        let bytes = gather(ready!(self.up.poll_room(cx, radio.uplink.capacity()))?);
        let accepted = bytes.len();
        if accepted > 0 {
            self.up.push(bytes, radio.clock().now());
        }
        Poll::Ready(Ok(accepted))
    }
}

impl Drop for Shaped {
    fn drop(&mut self) {
        if let Some(reading) = &self.reading {
            reading.abort();
        }
        // Accepted bytes all precede this end, whatever its instant says.
        self.up.finish(0, Ok(()));
    }
}

/// Ends when the stream has been dropped and none of its bytes were delivered for
/// [`LINGER`].
async fn stuck(pipe: &Pipe, abandoned: oneshot::Receiver<()>) {
    abandoned.await.ok();
    let mut before = usize::MAX;
    while pipe.held() < before {
        before = pipe.held();
        tokio::time::sleep(LINGER).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for LinkStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let radio = Arc::clone(&self.radio);
        let before = buf.filled().len();
        match self.path() {
            Path::Direct(io) => ready!(Pin::new(io).poll_read(cx, buf))?,
            Path::Shaped(shaped) => ready!(shaped.poll_read(cx, &radio, buf))?,
        }
        radio.meter.count_downlink(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for LinkStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let radio = Arc::clone(&self.radio);
        let written = match self.path() {
            Path::Direct(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Path::Shaped(shaped) => shaped.poll_write(cx, &radio, |room| gather(bufs, room)),
        };
        let written = ready!(written)?;
        radio.meter.count_uplink(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.path {
            Path::Direct(io) => io.is_write_vectored(),
            Path::Shaped(_) => true,
        }
    }

    /// Does not wait for shaped bytes to arrive: like a socket's, the link's buffer
    /// empties by itself.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.path() {
            Path::Direct(io) => Pin::new(io).poll_flush(cx),
            Path::Shaped(shaped) => Poll::Ready(shaped.up.check_open()),
        }
    }

    /// Waits until everything written has been delivered, and the socket shut down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let radio = Arc::clone(&self.radio);
        match self.path() {
            Path::Direct(io) => Pin::new(io).poll_shutdown(cx),
            Path::Shaped(shaped) => {
                shaped.up.finish(radio.clock().now(), Ok(()));
                shaped.up.poll_closed(cx)
            }
        }
    }
}

/// One buffer out of many, of at most `room` bytes.
fn gather(bufs: &[IoSlice<'_>], room: usize) -> Bytes {
    let total: usize = bufs.iter().map(|buf| buf.len()).sum();
    let limit = total.min(room);
    let mut gathered = BytesMut::with_capacity(limit);
    for buf in bufs {
        let left = limit - gathered.len();
        gathered.put_slice(&buf[..buf.len().min(left)]);
    }
    gathered.freeze()
}
