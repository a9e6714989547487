//! One training stream to the cloud: requests up, replies down, each within its time.

use std::time::Duration;

use cleave_shared::wire::{
    self, Carrier,
    v1::{self, train_reply::Kind as Reply, train_request::Kind},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::cloud::{CloudClient, explain};

/// Messages that wait for the network: the chunks of one step.
const OUTGOING: usize = 4;
/// Largest gradient that is accepted, bytes; as the cloud's default for activations.
const MAX_GRADIENT_BYTES: usize = 512 << 20;

/// An open training stream.
pub struct Conversation {
    address: String,
    requests: mpsc::Sender<v1::TrainRequest>,
    replies: Streaming<v1::TrainReply>,
    patience: Duration,
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

impl Conversation {
    /// Opens or resumes a run; gives the step that both sides continue from.
    pub async fn open(
        client: &CloudClient,
        open: v1::TrainOpen,
        patience: Duration,
    ) -> Result<(Self, u64), ConversationError> {
        let address = client.address().to_string();
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let first = v1::TrainRequest { kind: Some(Kind::Open(open)) };
        requests.try_send(first).expect("the channel is new");
        let opening = timeout(patience, client.train(ReceiverStream::new(outgoing))).await;
        let replies = match opening {
            Ok(Ok(replies)) => replies,
            Ok(Err(status)) => return Err(sort(&address, &status)),
            Err(_) => return Err(silent(&address, patience)),
        };
        let mut conversation = Self { address, requests, replies, patience };
        match conversation.reply().await? {
            Reply::Opened(v1::TrainOpened { resume_step }) => Ok((conversation, resume_step)),
            _ => Err(conversation.confused("opening a run")),
        }
    }

    /// Sends a step; gives loss and gradient.
    pub async fn step(
        &mut self,
        step: v1::TrainStep,
    ) -> Result<v1::TrainStepped, ConversationError> {
        let id = step.id;
        self.send(step, Kind::Step).await?;
        match self.reply().await? {
            Reply::Stepped(first) if first.id == id => {
                let rest = wire::receive(first, MAX_GRADIENT_BYTES, &mut self.replies);
                let whole = timeout(self.patience, rest).await;
                let whole = whole.map_err(|_| silent(&self.address, self.patience))?;
                whole.map_err(|status| sort(&self.address, &status))
            }
            _ => Err(self.confused("a step")),
        }
    }

    /// Loss and right answers on a batch, without an update.
    pub async fn evaluate(
        &mut self,
        batch: v1::TrainEvaluate,
    ) -> Result<v1::TrainEvaluated, ConversationError> {
        self.send(batch, Kind::Evaluate).await?;
        match self.reply().await? {
            Reply::Evaluated(done) => Ok(done),
            _ => Err(self.confused("an evaluation")),
        }
    }

    /// Has the cloud write its half of step `id`.
    pub async fn checkpoint(&mut self, id: u64) -> Result<(), ConversationError> {
        let kind = Some(Kind::Checkpoint(v1::TrainCheckpoint { id }));
        self.send_part(v1::TrainRequest { kind }).await?;
        match self.reply().await? {
            Reply::Checkpointed(done) if done.id == id => Ok(()),
            _ => Err(self.confused("a checkpoint")),
        }
    }

    async fn send<M: Carrier>(
        &mut self,
        message: M,
        kind: fn(M) -> Kind,
    ) -> Result<(), ConversationError> {
        for part in wire::send(message, |m| v1::TrainRequest { kind: Some(kind(m)) }) {
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: v1::TrainRequest) -> Result<(), ConversationError> {
        match timeout(self.patience, self.requests.send(part)).await {
            Ok(Ok(())) => Ok(()),
            // The stream is gone; what the cloud said about it comes as the reply.
            Ok(Err(_)) => {
                Err(self.reply().await.err().unwrap_or_else(|| self.confused("a request")))
            }
            Err(_) => Err(silent(&self.address, self.patience)),
        }
    }

    async fn reply(&mut self) -> Result<Reply, ConversationError> {
        match timeout(self.patience, self.replies.message()).await {
            Ok(Ok(Some(v1::TrainReply { kind: Some(kind) }))) => Ok(kind),
            Ok(Ok(Some(_))) => Err(self.confused("a request")),
            Ok(Ok(None)) => {
                Err(ConversationError::Lost("the cloud ended the training stream".into()))
            }
            Ok(Err(status)) => Err(sort(&self.address, &status)),
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

/// Whether a failure is worth another try.
fn sort(address: &str, status: &Status) -> ConversationError {
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

fn silent(address: &str, patience: Duration) -> ConversationError {
    let seconds = patience.as_secs();
    ConversationError::Lost(format!(
        "the cloud at {address} was silent for {seconds} s (train.step_timeout_s)"
    ))
}
