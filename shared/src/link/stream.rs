//! A connection through the radio.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    task::AbortHandle,
};

use super::{
    cell::Radio,
    pump,
    sim::{FlowId, Taken},
};

/// Looks like the connection it wraps, but its bytes travel over the radio.
///
/// A write is accepted at once, as by a socket buffer, up to the bytes that fill the link; it reaches
/// the socket when it is due, whether or not anyone polls. A read returns the bytes that have arrived
/// by now. Shutdown and end of stream travel behind the bytes before them. On an ideal network calls go
/// straight to the inner stream, until [`Link::set_profile`](super::Link::set_profile) puts the radio on
/// another one.
///
/// Each byte is copied once per direction: on a write from the caller's buffer into a [`Bytes`] that
/// then moves to the socket; on a read from the [`Bytes`] that the socket was read into to the caller's
/// buffer.
///
/// Dropping it ends its tasks: the reading one at once, the writing one when what was written has been
/// delivered (or the peer has taken none of it for too long), as the kernel does for a closed socket.
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
    /// Only while one becomes the other.
    Moving,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LinkStream<S> {
    pub(super) fn new(io: S, radio: Arc<Radio>) -> Self {
        radio.meter.count_connection();
        let mut stream = Self { radio, path: Path::Direct(io) };
        stream.path();
        stream
    }

    /// Waits for the handshake's round trip, as a connect over the link does. Not waiting is allowed:
    /// what is written before leaves when the handshake is through.
    pub async fn established(&mut self) {
        let radio = Arc::clone(&self.radio);
        if let Path::Shaped(shaped) = self.path() {
            let uplink = shaped.uplink;
            poll_fn(|cx| {
                radio.engine.with(|network, _| {
                    if network.is_established(uplink) {
                        return Poll::Ready(());
                    }
                    network.set_writer(uplink, cx.waker());
                    Poll::Pending
                })
            })
            .await;
        }
    }

    /// Where bytes go now. A direct stream on a network that is no longer ideal has nothing queued, so
    /// its socket can be handed to pumps at any poll.
    fn path(&mut self) -> &mut Path<S> {
        if matches!(self.path, Path::Direct(_))
            && !self.radio.is_ideal()
            && let Path::Direct(io) = mem::replace(&mut self.path, Path::Moving)
        {
            self.path = Path::Shaped(Shaped::start(io, &self.radio));
        }
        &mut self.path
    }
}

/// The caller's ends of the two flows.
#[derive(Debug)]
struct Shaped {
    radio: Arc<Radio>,
    uplink: FlowId,
    reading: AbortHandle,
    /// Dropped with the stream, which tells the writing task to linger no longer than it has to.
    _present: oneshot::Sender<()>,
}

impl Shaped {
    fn start<S>(io: S, radio: &Arc<Radio>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let uplink = radio.engine.with(|network, now| network.connect(radio.device, now));
        let (present, abandoned) = oneshot::channel();
        let (read, write) = tokio::io::split(io);
        let reading = tokio::spawn(pump::downlink(read, uplink.reverse(), Arc::clone(radio)));
        tokio::spawn(pump::uplink(write, uplink, Arc::clone(radio), abandoned));
        let (radio, reading) = (Arc::clone(radio), reading.abort_handle());
        Self { radio, uplink, reading, _present: present }
    }

    fn poll_read(&self, cx: &Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let downlink = self.uplink.reverse();
        let mut first = true;
        while out.remaining() > 0 {
            let taken = self.radio.engine.with(|network, now| {
                let taken = network.take(downlink, out.remaining(), now);
                if first && matches!(taken, Taken::Nothing) {
                    network.set_reader(downlink, cx.waker());
                }
                taken
            });
            match taken {
                Taken::Bytes(bytes) => out.put_slice(&bytes),
                Taken::End => break,
                Taken::Failed(failure) if first => return Poll::Ready(Err((&failure).into())),
                Taken::Nothing if first => return Poll::Pending,
                Taken::Failed(_) | Taken::Nothing => break,
            }
            first = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Accepts the bytes that `gather` makes of the room there is.
    fn poll_write(
        &self,
        cx: &Context<'_>,
        gather: impl FnOnce(usize) -> Bytes,
    ) -> Poll<io::Result<usize>> {
        let room = self.radio.engine.with(|network, _| match network.room(self.uplink) {
            Ok(0) => {
                network.set_writer(self.uplink, cx.waker());
                Poll::Pending
            }
            room => Poll::Ready(room),
        });
        let bytes = gather(ready!(room)?);
        let accepted = bytes.len();
        if accepted > 0 {
            self.radio.engine.with(|network, now| network.write(self.uplink, bytes, now));
        }
        Poll::Ready(Ok(accepted))
    }

    fn check_open(&self) -> io::Result<()> {
        self.radio.engine.with(|network, _| match network.closed(self.uplink) {
            Some(Err(failure)) => Err((&failure).into()),
            _ => Ok(()),
        })
    }

    fn poll_shutdown(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.radio.engine.with(|network, now| {
            network.finish(self.uplink, Ok(()), now);
            match network.closed(self.uplink) {
                Some(Ok(())) => Poll::Ready(Ok(())),
                Some(Err(failure)) => Poll::Ready(Err((&failure).into())),
                None => {
                    network.set_writer(self.uplink, cx.waker());
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Shaped {
    fn drop(&mut self) {
        self.reading.abort();
        self.radio.engine.with(|network, now| {
            network.finish(self.uplink, Ok(()), now);
            network.remove(self.uplink.reverse());
        });
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
        let before = buf.filled().len();
        match self.path() {
            Path::Direct(io) => ready!(Pin::new(io).poll_read(cx, buf))?,
            Path::Shaped(shaped) => return shaped.poll_read(cx, buf),
            Path::Moving => return Poll::Ready(Err(moving())),
        }
        self.radio.meter.count_downlink(buf.filled().len() - before);
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
        let written = match self.path() {
            Path::Direct(io) => ready!(Pin::new(io).poll_write_vectored(cx, bufs))?,
            Path::Shaped(shaped) => return shaped.poll_write(cx, |room| gather(bufs, room)),
            Path::Moving => return Poll::Ready(Err(moving())),
        };
        self.radio.meter.count_uplink(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.path {
            Path::Direct(io) => io.is_write_vectored(),
            Path::Shaped(_) | Path::Moving => true,
        }
    }

    /// Does not wait for shaped bytes to arrive: like a socket's, the link's buffer empties by itself.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.path() {
            Path::Direct(io) => Pin::new(io).poll_flush(cx),
            Path::Shaped(shaped) => Poll::Ready(shaped.check_open()),
            Path::Moving => Poll::Ready(Err(moving())),
        }
    }

    /// Waits until everything written has been delivered, and the socket shut down.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.path() {
            Path::Direct(io) => Pin::new(io).poll_shutdown(cx),
            Path::Shaped(shaped) => shaped.poll_shutdown(cx),
            Path::Moving => Poll::Ready(Err(moving())),
        }
    }
}

/// A panic while the pumps were started has left nothing to talk to.
fn moving() -> io::Error {
    io::Error::other("the link could not be started")
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
