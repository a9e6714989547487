//! A connection that a node has accepted.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use super::{Peer, ServerTls};

/// A peer that says nothing is left after this: first in the handshake, then before its first words.
const PATIENCE: Duration = Duration::from_secs(5);
/// Those are HTTP/2's preface (RFC 9113, 3.4), or as much of an HTTP/1.1 request, none of which is shorter. Only behind
/// them are there pings and timeouts of the protocol's own.
const FIRST_WORDS: usize = 24;

/// With who is at its other end.
pub struct Accepted {
    stream: Either<TcpStream, TlsStream<TcpStream>>,
    peer: Peer,
    /// None once they have come.
    first: Option<FirstWords>,
    /// Among the connections of its socket.
    _place: OwnedSemaphorePermit,
}

/// What has to be read in time.
struct FirstWords {
    missing: usize,
    over: Pin<Box<Sleep>>,
}

impl Accepted {
    /// After the handshake, if there are settings of one.
    pub(super) async fn new(
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<&ServerTls>,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        // The link has delay enough without Nagle's.
        stream.set_nodelay(true)?;
        let (stream, peer) = match tls {
            None => (Either::Left(stream), Peer::new(address, None)),
            Some(tls) => {
                let handshake = TlsAcceptor::from(tls.get()).accept(stream);
                let stream = timeout(PATIENCE, handshake).await??;
                let peer = Peer::new(address, stream.get_ref().1.peer_certificates());
                (Either::Right(stream), peer)
            }
        };
        let first = FirstWords { missing: FIRST_WORDS, over: Box::pin(sleep(PATIENCE)) };
        Ok(Self { stream, peer, first: Some(first), _place: place })
    }
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(first) = &mut self.first else { return read };
        first.missing = first.missing.saturating_sub(buffer.filled().len() - before);
        if first.missing == 0 {
            self.first = None;
        } else if read.is_pending() && first.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
