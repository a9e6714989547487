//! Streams whose messages are parts of larger ones: a message, then its chunks.

use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{Assembler, Carrier, v1};

/// A message of a stream that may be a chunk of the one before it.
pub trait Part {
    fn into_chunk(self) -> Option<v1::TensorChunk>;
    fn from_chunk(chunk: v1::TensorChunk) -> Self;
}

macro_rules! parts {
    ($($message:ident $module:ident),+) => {$(
        impl Part for v1::$message {
            fn into_chunk(self) -> Option<v1::TensorChunk> {
                match self.kind {
                    Some(v1::$module::Kind::Chunk(chunk)) => Some(chunk),
                    _ => None,
                }
            }

            // Some messages have a number besides.
            #[allow(clippy::needless_update)]
            fn from_chunk(chunk: v1::TensorChunk) -> Self {
                Self { kind: Some(v1::$module::Kind::Chunk(chunk)), ..Default::default() }
            }
        }
    )+};
}

parts!(
    InferPart infer_part,
    InferReplyPart infer_reply_part,
    TrainRequest train_request,
    TrainReply train_reply,
    GenerateRequest generate_request,
    GroupRequest group_request,
    GroupReply group_reply,
    WeightsPart weights_part
);

/// Completes `first` with the chunks that follow it in `parts`. Refuses tensors of more than
/// `limit` bytes together.
pub async fn receive<M: Carrier, P: Part>(
    first: M,
    limit: usize,
    parts: &mut (impl Stream<Item = Result<P, Status>> + Unpin),
) -> Result<M, Status> {
    let mut assembler = Assembler::new(first, limit)?;
    while assembler.is_open() {
        let Some(part) = parts.next().await.transpose()? else { break };
        match part.into_chunk() {
            Some(chunk) => assembler.push(chunk.data)?,
            None => {
                let text = "a message came before all chunks of the one before it";
                return Err(Status::invalid_argument(text));
            }
        }
    }
    Ok(assembler.finish()?)
}

/// A message and its chunks, in the order to send them; `wrap` makes the message a part.
pub fn send<M: Carrier, P: Part>(mut message: M, wrap: impl FnOnce(M) -> P) -> Vec<P> {
    let chunks = super::split(&mut message);
    let mut parts = Vec::with_capacity(1 + chunks.len());
    parts.push(wrap(message));
    parts.extend(chunks.into_iter().map(P::from_chunk));
    parts
}
