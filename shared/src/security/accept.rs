//! The socket that a node serves on: connections come out of it when their handshake is done.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use super::{Peer, ServerTls};

/// A peer that says nothing is left after this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at once; others wait in the kernel's queue.
const HANDSHAKES: usize = 128;
/// When the system has no room for a connection, the next is tried after this.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for as long as it is read.
pub struct Listener {
    accepted: mpsc::Receiver<Accepted>,
}

impl Listener {
    /// With TLS if there are settings of it.
    pub fn new(socket: TcpListener, tls: Option<Arc<ServerTls>>) -> Self {
        let (ready, accepted) = mpsc::channel(1);
        tokio::spawn(accept(socket, tls, ready));
        Self { accepted }
    }
}

impl Stream for Listener {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|accepted| accepted.map(Ok))
    }
}

async fn accept(socket: TcpListener, tls: Option<Arc<ServerTls>>, ready: mpsc::Sender<Accepted>) {
    let room = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let next = tokio::select! {
            next = socket.accept() => next,
            () = ready.closed() => return,
        };
        let (stream, address) = match next {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (tls, ready) = (tls.clone(), ready.clone());
        tokio::spawn(async move {
            match Accepted::new(stream, address, tls.as_deref()).await {
                Ok(accepted) => drop(ready.send(accepted).await),
                Err(error) => tracing::info!(%address, "no handshake: {error}"),
            }
            drop(permit);
        });
    }
}

/// A connection, and who is at its other end.
pub struct Accepted {
    stream: Either<TcpStream, TlsStream<TcpStream>>,
    peer: Peer,
}

impl Accepted {
    async fn new(
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<&ServerTls>,
    ) -> io::Result<Self> {
        // The link has delay enough without Nagle's.
        stream.set_nodelay(true)?;
        let Some(tls) = tls else {
            let peer = Peer::new(address, None);
            return Ok(Self { stream: Either::Left(stream), peer });
        };
        let acceptor = TlsAcceptor::from(tls.get());
        let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await??;
        let peer = Peer::new(address, stream.get_ref().1.peer_certificates());
        Ok(Self { stream: Either::Right(stream), peer })
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
