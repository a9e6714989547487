//! One training stream to the cloud: requests up, replies down, each within its time.
//!
//! Nothing here waits for the network while there is work to do: requests queue up, and a task of its own
//! reads replies as they come.

use std::time::{Duration, Instant};

use cleave_shared::wire::{
    self, Carrier, Frames, Sequence,
    v1::{self, train_reply::Kind as Reply, train_request::Kind},
};
use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    task::AbortHandle,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

use crate::cloud::{CloudClient, explain};

/// Messages that wait for the network. A step sends nothing new before its micro-batches are answered, so
/// that what waits is one batch at most, however many chunks it has.
const OUTGOING: usize = 1 << 16;
/// Replies that wait for the trainer, which takes them before it computes anything new.
const INCOMING: usize = 64;
/// Largest gradient that is accepted, bytes; as the cloud's default for activations.
const MAX_GRADIENT_BYTES: usize = 512 << 20;

/// An open training stream.
pub struct Conversation {
    address: String,
    requests: mpsc::Sender<v1::TrainRequest>,
    sequence: Sequence,
    replies: mpsc::Receiver<Result<Arrived, Status>>,
    reader: AbortHandle,
    patience: Duration,
}

/// A whole reply, and when its last byte came.
struct Arrived {
    reply: Reply,
    returned: Instant,
}

/// The answer to a micro-batch.
pub struct Prepared {
    pub reply: v1::TrainPrepared,
    pub returned: Instant,
}

/// What the cloud says of a micro-batch.
pub enum Answer {
    Prepared(Prepared),
    /// Where the last stages are this node's: it is their turn.
    Forwarded(v1::TrainForwarded),
}

/// Why the stream cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The connection or the cloud went away; another stream may work.
    #[error("{0}")]
    Lost(String),
    /// The cloud refused, and would refuse again.
    #[error("{0}")]
    Refused(String),
    /// This node failed.
    #[error("{0}")]
    Local(String),
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Conversation {
    /// Opens or resumes a run; gives the step that both sides continue from.
    pub async fn open(
        client: &CloudClient,
        open: v1::TrainOpen,
        patience: Duration,
    ) -> Result<(Self, u64), ConversationError> {
        let address = client.address().to_string();
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let mut sequence = Sequence::default();
        let first = v1::TrainRequest { number: 0, kind: Some(Kind::Open(open)) };
        requests.try_send(sequence.stamp(first)).expect("the channel is new");
        let opening = timeout(patience, client.train(ReceiverStream::new(outgoing))).await;
        let stream = match opening {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => return Err(sort(&address, &status)),
            Err(_) => return Err(silent(&address, patience)),
        };
        let (arrived, replies) = mpsc::channel(INCOMING);
        let reader = tokio::spawn(read(stream, arrived)).abort_handle();
        let mut conversation = Self { address, requests, sequence, replies, reader, patience };
        match conversation.reply().await?.reply {
            Reply::Opened(v1::TrainOpened { resume_step }) => Ok((conversation, resume_step)),
            _ => Err(conversation.confused("opening a run")),
        }
    }

    /// Sends a micro-batch, whose answer comes by [`Conversation::prepared`].
    pub async fn prepare(&mut self, micro: v1::TrainPrepare) -> Result<(), ConversationError> {
        self.send(micro, Kind::Prepare).await
    }

    /// Sends the gradient that answers a [`Answer::Forwarded`].
    pub async fn backward(&mut self, gradient: v1::TrainBackward) -> Result<(), ConversationError> {
        self.send(gradient, Kind::Backward).await
    }

    /// The next answer to a micro-batch.
    pub async fn answer(&mut self) -> Result<Answer, ConversationError> {
        let arrived = self.reply().await?;
        self.as_answer(arrived)
    }

    /// The same, if it is here.
    pub fn try_answer(&mut self) -> Result<Option<Answer>, ConversationError> {
        match self.replies.try_recv() {
            Ok(Ok(arrived)) => self.as_answer(arrived).map(Some),
            Ok(Err(status)) => Err(sort(&self.address, &status)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ended()),
        }
    }

    fn as_answer(&self, arrived: Arrived) -> Result<Answer, ConversationError> {
        match arrived {
            Arrived { reply: Reply::Prepared(reply), returned } => {
                Ok(Answer::Prepared(Prepared { reply, returned }))
            }
            Arrived { reply: Reply::Forwarded(reply), .. } => Ok(Answer::Forwarded(reply)),
            _ => Err(self.confused("a micro-batch")),
        }
    }

    /// Has the cloud apply its half of a step that is prepared; there is no answer.
    pub async fn commit(&mut self, commit: v1::TrainCommit) -> Result<(), ConversationError> {
        self.send_part(v1::TrainRequest { number: 0, kind: Some(Kind::Commit(commit)) }).await
    }

    /// Loss and right answers on a batch, without an update.
    pub async fn evaluate(
        &mut self,
        batch: v1::TrainEvaluate,
    ) -> Result<v1::TrainEvaluated, ConversationError> {
        self.send(batch, Kind::Evaluate).await?;
        match self.reply().await?.reply {
            Reply::Evaluated(done) => Ok(done),
            _ => Err(self.confused("an evaluation")),
        }
    }

    /// What the last stages are to be given for a batch without labels, without an update.
    pub async fn forwarded(
        &mut self,
        batch: v1::TrainEvaluate,
    ) -> Result<v1::TrainForwarded, ConversationError> {
        self.send(batch, Kind::Evaluate).await?;
        match self.reply().await?.reply {
            Reply::Forwarded(done) => Ok(done),
            _ => Err(self.confused("an evaluation")),
        }
    }

    /// Has the cloud write its half of step `id`; `held` are the steps on this node's disk.
    pub async fn checkpoint(
        &mut self,
        id: u64,
        held: Vec<u64>,
    ) -> Result<v1::TrainCheckpointed, ConversationError> {
        let kind = Some(Kind::Checkpoint(v1::TrainCheckpoint { id, held }));
        self.send_part(v1::TrainRequest { number: 0, kind }).await?;
        match self.reply().await?.reply {
            Reply::Checkpointed(done) if done.id == id => Ok(done),
            _ => Err(self.confused("a checkpoint")),
        }
    }

    async fn send<M: Carrier>(
        &mut self,
        message: M,
        kind: fn(M) -> Kind,
    ) -> Result<(), ConversationError> {
        let wrap = |m| v1::TrainRequest { number: 0, kind: Some(kind(m)) };
        for part in wire::send(message, wrap) {
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: v1::TrainRequest) -> Result<(), ConversationError> {
        let part = self.sequence.stamp(part);
        match timeout(self.patience, self.requests.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.why_gone().await),
            Err(_) => Err(silent(&self.address, self.patience)),
        }
    }

    /// Of a stream that takes nothing any more: what the cloud said last, behind answers that came before.
    async fn why_gone(&mut self) -> ConversationError {
        loop {
            if let Err(error) = self.reply().await {
                return error;
            }
        }
    }

    async fn reply(&mut self) -> Result<Arrived, ConversationError> {
        match timeout(self.patience, self.replies.recv()).await {
            Ok(Some(Ok(arrived))) => Ok(arrived),
            Ok(Some(Err(status))) => Err(sort(&self.address, &status)),
            Ok(None) => Err(ended()),
            Err(_) => Err(silent(&self.address, self.patience)),
        }
    }

    fn confused(&self, what: &str) -> ConversationError {
        let address = &self.address;
        ConversationError::Refused(format!(
            "the cloud at {address} answered {what} with something else"
        ))
    }
}

/// Hands on whole replies until the stream ends.
async fn read(stream: Streaming<v1::TrainReply>, replies: mpsc::Sender<Result<Arrived, Status>>) {
    let mut frames = Frames::new(stream);
    while let Some(first) = frames.next().await {
        let whole = match first {
            Ok(first) => complete(first, &mut frames).await,
            Err(status) => Err(status),
        };
        let arrived = whole.map(|reply| Arrived { reply, returned: Instant::now() });
        let failed = arrived.is_err();
        if replies.send(arrived).await.is_err() || failed {
            return;
        }
    }
}

async fn complete(
    first: v1::TrainReply,
    frames: &mut Frames<Streaming<v1::TrainReply>>,
) -> Result<Reply, Status> {
    match first.kind {
        Some(Reply::Prepared(prepared)) => {
            wire::receive(prepared, MAX_GRADIENT_BYTES, frames).await.map(Reply::Prepared)
        }
        Some(Reply::Forwarded(forwarded)) => {
            wire::receive(forwarded, MAX_GRADIENT_BYTES, frames).await.map(Reply::Forwarded)
        }
        Some(reply) => Ok(reply),
        None => Err(Status::invalid_argument("the cloud sent an empty message")),
    }
}

/// Whether a failure is worth another try.
pub fn sort(address: &str, status: &Status) -> ConversationError {
    let text = explain(address, status);
    match status.code() {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::Unimplemented
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated => ConversationError::Refused(text),
        _ => ConversationError::Lost(text),
    }
}

fn ended() -> ConversationError {
    ConversationError::Lost("the cloud ended the training stream".into())
}

fn silent(address: &str, patience: Duration) -> ConversationError {
    let seconds = patience.as_secs();
    ConversationError::Lost(format!(
        "the cloud at {address} was silent for {seconds} s (train.step_timeout_s)"
    ))
}
