//! The socket that a node serves on: connections come out of it when their handshake is done.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_stream::Stream;

use super::{Accepted, ServerTls};

/// Handshakes at once; others wait in the kernel's queue.
const HANDSHAKES: usize = 128;
/// When the system has no room for a connection, the next is tried after this.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections of one socket, where the system would allow more.
const MOST_CONNECTIONS: u64 = 8192;

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

/// Strangers may take a third of the files that this process may have open, so that there are some for checkpoints.
fn most_connections() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MOST_CONNECTIONS * 3);
    (files / 3).clamp(1, MOST_CONNECTIONS) as usize
}

async fn accept(socket: TcpListener, tls: Option<Arc<ServerTls>>, ready: mpsc::Sender<Accepted>) {
    let connections = Arc::new(Semaphore::new(most_connections()));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let (Some(connection), Some(handshake)) =
            (permit(&connections).await, permit(&handshakes).await)
        else {
            return;
        };
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
            match Accepted::new(stream, address, tls.as_deref(), connection).await {
                Ok(accepted) => drop(ready.send(accepted).await),
                Err(error) => tracing::info!(%address, "no handshake: {error}"),
            }
            drop(handshake);
        });
    }
}

async fn permit(room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    room.clone().acquire_owned().await.ok()
}
