//! The conversation with one edge about one run.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cleave_shared::wire::{
    self,
    v1::{self, train_reply::Kind as Reply, train_request::Kind},
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    Shared,
    run::{self, Run, Step},
    table::Slot,
};
use crate::service::assemble;

/// Numbers streams, so that a run knows which one opened it last.
static STREAMS: AtomicU64 = AtomicU64::new(1);

pub struct Conversation {
    shared: Arc<Shared>,
    run_id: String,
    slot: Slot,
    number: u64,
    requests: Streaming<v1::TrainRequest>,
    replies: mpsc::Sender<Result<v1::TrainReply, Status>>,
}

/// Why a conversation is over although nothing went wrong.
struct Hangup;

impl Conversation {
    /// Opens the run and queues the first reply.
    pub async fn open(
        shared: Arc<Shared>,
        open: v1::TrainOpen,
        requests: Streaming<v1::TrainRequest>,
        replies: mpsc::Sender<Result<v1::TrainReply, Status>>,
    ) -> Result<Self, Status> {
        let run_id = open.run.clone();
        cleave_shared::checkpoint::check_run_id(&run_id)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let slot = shared.runs.slot(&run_id).map_err(Status::resource_exhausted)?;
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        let mut held = slot.lock().await;
        let (mut run, resume_step) = run::open(held.take(), open, &shared).await?;
        run.owner = number;
        tracing::info!(run = run.id(), resume_step, "training run opened");
        *held = Some(run);
        drop(held);
        let opened = Reply::Opened(v1::TrainOpened { resume_step });
        let _ = replies.send(Ok(v1::TrainReply { kind: Some(opened) })).await;
        Ok(Self { shared, run_id, slot, number, requests, replies })
    }

    /// Answers until the edge ends the stream, vanishes or makes a mistake.
    pub async fn run(mut self) {
        let outcome = self.converse().await;
        match outcome {
            Ok(Hangup) => tracing::info!(run = self.run_id, "training stream ended"),
            Err(status) => {
                tracing::warn!(run = self.run_id, %status, "training stream failed");
                let _ = self.replies.send(Err(status)).await;
            }
        }
    }

    async fn converse(&mut self) -> Result<Hangup, Status> {
        let mut ended = self.shared.ended.clone();
        loop {
            let request = tokio::select! {
                request = self.requests.message() => request,
                _ = ended.wait_for(|ended| *ended) => {
                    return Err(Status::unavailable("the cloud is ending; open the run again"));
                }
            };
            let Some(request) = request? else {
                // A deliberate end, unlike a broken connection: the run is not resumed from memory.
                self.shared.runs.forget(&self.run_id);
                return Ok(Hangup);
            };
            let (reply, chunks) = self.answer(request).await?;
            let parts = std::iter::once(reply).chain(chunks.into_iter().map(Reply::Chunk));
            for kind in parts {
                if self.replies.send(Ok(v1::TrainReply { kind: Some(kind) })).await.is_err() {
                    return Ok(Hangup);
                }
            }
        }
    }

    async fn answer(
        &mut self,
        request: v1::TrainRequest,
    ) -> Result<(Reply, Vec<v1::TensorChunk>), Status> {
        match request.kind {
            Some(Kind::Step(step)) => {
                let step = self.assembled(step).await?;
                let step = self.decode(step)?;
                let shared = self.shared.clone();
                let mut stepped = self.with_run(async |run| run.step(step, &shared).await).await?;
                let chunks = wire::split(&mut stepped);
                Ok((Reply::Stepped(stepped), chunks))
            }
            Some(Kind::Evaluate(batch)) => {
                let batch = self.assembled(batch).await?;
                let codec = self.shared.activation_codec;
                let (_, labels) = wire::labels(batch.labels, codec)?;
                let activation = wire::decode(batch.activation, codec)?;
                let shared = self.shared.clone();
                let done =
                    self.with_run(async |run| run.evaluate(activation, labels, &shared).await);
                Ok((Reply::Evaluated(done.await?), Vec::new()))
            }
            Some(Kind::Checkpoint(v1::TrainCheckpoint { id })) => {
                let shared = self.shared.clone();
                self.with_run(async |run| run.checkpoint(id, &shared).await).await?;
                Ok((Reply::Checkpointed(v1::TrainCheckpoint { id }), Vec::new()))
            }
            Some(Kind::Open(_)) => Err(Status::invalid_argument("the stream is open already")),
            Some(Kind::Chunk(_)) => {
                Err(Status::invalid_argument("a chunk of no step or evaluation"))
            }
            None => Err(Status::invalid_argument("an empty message")),
        }
    }

    /// The rest of a message that was sent in pieces.
    async fn assembled<M: wire::Carrier>(&mut self, first: M) -> Result<M, Status> {
        let requests = &mut self.requests;
        assemble(first, self.shared.limit, async || match requests.message().await? {
            Some(v1::TrainRequest { kind: Some(Kind::Chunk(chunk)) }) => Ok(Some(chunk)),
            Some(_) => Err(Status::invalid_argument("a message before the last one's chunks")),
            None => Ok(None),
        })
        .await
    }

    fn decode(&self, step: v1::TrainStep) -> Result<Step, Status> {
        let codec = self.shared.activation_codec;
        let (_, labels) = wire::labels(step.labels, codec)?;
        let activation = wire::decode(step.activation, codec)?;
        Ok(Step { id: step.id, activation, labels, want_gradient: step.want_gradient })
    }

    /// Lends the run, unless another stream has taken it over.
    async fn with_run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Run) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut held = self.slot.lock().await;
        let outcome = match held.as_mut() {
            Some(run) if run.owner == self.number => work(run).await,
            _ => return Err(Status::aborted("another stream has opened this run")),
        };
        if held.as_ref().is_some_and(Run::is_broken) {
            *held = None;
        }
        outcome
    }
}
