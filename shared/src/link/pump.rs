//! The two tasks of a connection, between its socket and the simulated network.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
};

use super::{
    cell::Radio,
    sim::{Failure, FlowId, Taken},
};

/// Most bytes read or written at once.
const CHUNK: usize = 64 << 10;
/// Bytes allocated at once for reading.
const BLOCK: usize = 4 * CHUNK;
/// How long a dropped stream's bytes may make no progress at a peer that does not read, before they
/// are given up.
const LINGER: Duration = Duration::from_secs(30);

/// Ends a flow on both sides when its task is gone for whatever reason (also a dropped runtime), so
/// that no stream waits for it for ever.
struct HangUp(Arc<Radio>, FlowId);

impl Drop for HangUp {
    fn drop(&mut self) {
        let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the link's task is gone");
        self.0.engine.with(|network, now| {
            network.finish(self.1, Err(Failure::from(&gone)), now);
            network.close(self.1, Err(Failure::from(&gone)));
        });
    }
}

/// Writes to the socket what has come over the uplink; ends when the stream is dropped and all it
/// wrote is delivered (or the peer takes none of it for too long), as the kernel does for a closed
/// socket.
pub(super) async fn uplink<W: AsyncWrite + Unpin>(
    io: W,
    flow: FlowId,
    radio: Arc<Radio>,
    mut abandoned: oneshot::Receiver<()>,
) {
    let hang_up = HangUp(Arc::clone(&radio), flow);
    let mut dropped = false;
    let outcome = tokio::select! {
        outcome = deliver(io, flow, &radio) => outcome,
        () = stuck(flow, &radio, &mut abandoned, &mut dropped) => {
            Err(io::ErrorKind::TimedOut.into())
        }
    };
    let outcome = outcome.map_err(|error: io::Error| Failure::from(&error));
    radio.engine.with(|network, _| network.close(flow, outcome));
    if !dropped {
        abandoned.await.ok();
    }
    radio.engine.with(|network, _| network.remove(flow));
    drop(hang_up);
}

async fn deliver<W: AsyncWrite + Unpin>(mut io: W, flow: FlowId, radio: &Radio) -> io::Result<()> {
    while let Some(bytes) = next(flow, radio).await? {
        io.write_all(&bytes).await?;
        io.flush().await?;
    }
    io.shutdown().await
}

/// The next bytes that have arrived; none after the last.
async fn next(flow: FlowId, radio: &Radio) -> io::Result<Option<Bytes>> {
    poll_fn(|cx| {
        radio.engine.with(|network, now| match network.take(flow, CHUNK, now) {
            Taken::Bytes(bytes) => Poll::Ready(Ok(Some(bytes))),
            Taken::End => Poll::Ready(Ok(None)),
            Taken::Failed(failure) => Poll::Ready(Err((&failure).into())),
            Taken::Nothing => {
                network.set_reader(flow, cx.waker());
                Poll::Pending
            }
        })
    })
    .await
}

/// Ends when the stream has been dropped and none of its bytes were delivered for [`LINGER`].
async fn stuck(
    flow: FlowId,
    radio: &Radio,
    abandoned: &mut oneshot::Receiver<()>,
    dropped: &mut bool,
) {
    abandoned.await.ok();
    *dropped = true;
    let mut before = u64::MAX;
    loop {
        let held = radio.engine.with(|network, _| network.held(flow));
        if held >= before {
            return;
        }
        before = held;
        tokio::time::sleep(LINGER).await;
    }
}

/// Reads from the socket while the sender has room; ends with the socket's read side.
pub(super) async fn downlink<R: AsyncRead + Unpin>(mut io: R, flow: FlowId, radio: Arc<Radio>) {
    let _hang_up = HangUp(Arc::clone(&radio), flow);
    let mut block = BytesMut::new();
    loop {
        let room = poll_fn(|cx| {
            radio.engine.with(|network, _| match network.room(flow) {
                Ok(0) => {
                    network.set_writer(flow, cx.waker());
                    Poll::Pending
                }
                room => Poll::Ready(room),
            })
        });
        let Ok(room) = room.await else { return };
        if block.capacity() < CHUNK {
            block = BytesMut::with_capacity(BLOCK);
        }
        let mut space = (&mut block).limit(room.min(CHUNK));
        let read = io.read_buf(&mut space).await;
        let more = matches!(read, Ok(1..));
        radio.engine.with(|network, now| match read {
            Ok(0) => network.finish(flow, Ok(()), now),
            Ok(_) => network.write(flow, block.split().freeze(), now),
            // The reader hears of it when it arrives.
            Err(error) => network.finish(flow, Err(Failure::from(&error)), now),
        });
        if !more {
            return;
        }
    }
}
