//! The conversation with one edge about one run.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cleave_shared::wire::{
    self,
    v1::{self, train_reply::Kind as Reply, train_request::Kind},
};
use tokio::sync::{MappedMutexGuard, MutexGuard, mpsc};
use tonic::{Status, Streaming};

use super::{
    Shared,
    run::{self, Run, Step},
    table::Slot,
};

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
        let resume_step = run::open(&mut held, open, number, &shared).await?;
        drop(held);
        tracing::info!(run = run_id, resume_step, "training run opened");
        let opened = reply(Reply::Opened(v1::TrainOpened { resume_step }));
        let _ = replies.send(Ok(opened)).await;
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
            for part in self.answer(request).await? {
                if self.replies.send(Ok(part)).await.is_err() {
                    return Ok(Hangup);
                }
            }
        }
    }

    async fn answer(&mut self, request: v1::TrainRequest) -> Result<Vec<v1::TrainReply>, Status> {
        let shared = self.shared.clone();
        let (codec, limit) = (shared.activation_codec, shared.limit);
        match request.kind {
            Some(Kind::Step(step)) => {
                let step = wire::receive(step, limit, &mut self.requests).await?;
                let (_, labels) = wire::labels(step.labels, codec)?;
                let activation = wire::decode(step.activation, codec)?;
                let (id, want_gradient) = (step.id, step.want_gradient);
                let step = Step { id, activation, labels, want_gradient };
                let stepped = self.run_of_mine().await?.step(step, &shared).await?;
                Ok(wire::send(stepped, |s| reply(Reply::Stepped(s))))
            }
            Some(Kind::Evaluate(batch)) => {
                let batch = wire::receive(batch, limit, &mut self.requests).await?;
                let (_, labels) = wire::labels(batch.labels, codec)?;
                let activation = wire::decode(batch.activation, codec)?;
                let mut run = self.run_of_mine().await?;
                let done = run.evaluate(activation, labels, &shared).await?;
                Ok(vec![reply(Reply::Evaluated(done))])
            }
            Some(Kind::Checkpoint(v1::TrainCheckpoint { id })) => {
                self.run_of_mine().await?.checkpoint(id, &shared).await?;
                Ok(vec![reply(Reply::Checkpointed(v1::TrainCheckpoint { id }))])
            }
            Some(Kind::Open(_)) => Err(Status::invalid_argument("the stream is open already")),
            Some(Kind::Chunk(_)) => {
                Err(Status::invalid_argument("a chunk of no step or evaluation"))
            }
            None => Err(Status::invalid_argument("an empty message")),
        }
    }

    /// Holds the run for one message, unless another stream has taken it over.
    async fn run_of_mine(&self) -> Result<MappedMutexGuard<'_, Run>, Status> {
        let held = self.slot.lock().await;
        let run = MutexGuard::try_map(held, |run| run.as_mut());
        run.ok()
            .filter(|run| run.belongs_to(self.number))
            .ok_or_else(|| Status::aborted("another stream has opened this run"))
    }
}

fn reply(kind: Reply) -> v1::TrainReply {
    v1::TrainReply { kind: Some(kind) }
}
