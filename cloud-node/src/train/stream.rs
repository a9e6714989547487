//! The conversation with one edge about one run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cleave_shared::wire::{
    self, Frames, Sequence,
    v1::{self, train_reply::Kind as Reply},
};
use tokio::{
    sync::{MappedMutexGuard, MutexGuard, mpsc, watch},
    time::timeout,
};
use tonic::{Status, Streaming};

use super::{
    Shared,
    incoming::{Request, read_ahead},
    run::{self, Run},
    table::Slot,
};

/// Numbers streams, so that a run knows which one opened it last.
static STREAMS: AtomicU64 = AtomicU64::new(1);
/// How long a node that ends waits for the commit of a step that is prepared: a way down, the edge's backward pass and
/// a way up, and half of the time that `stack` gives it in all, so that the other half is there for the disk.
const LAST_COMMIT: Duration = Duration::from_secs(4);

pub struct Conversation {
    shared: Arc<Shared>,
    run_id: String,
    slot: Slot,
    number: u64,
    requests: mpsc::Receiver<Result<Request, Status>>,
    replies: mpsc::Sender<Result<v1::TrainReply, Status>>,
    sequence: Sequence,
}

/// Why a conversation is over although nothing went wrong.
struct Hangup;

impl Conversation {
    /// Opens the run and queues the first reply.
    pub async fn open(
        shared: Arc<Shared>,
        open: v1::TrainOpen,
        requests: Frames<Streaming<v1::TrainRequest>>,
        replies: mpsc::Sender<Result<v1::TrainReply, Status>>,
    ) -> Result<Self, Status> {
        let run_id = open.run.clone();
        cleave_shared::checkpoint::check_run_id(&run_id)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let slot = shared.runs.slot(&run_id).map_err(Status::resource_exhausted)?;
        let number = STREAMS.fetch_add(1, Ordering::Relaxed);
        let mut held = slot.lock().await;
        let (resume_step, codecs) = run::open(&mut held, open, number, &shared).await?;
        drop(held);
        tracing::info!(run = run_id, resume_step, "training run opened");
        let requests = read_ahead(requests, codecs, shared.clone());
        let sequence = Sequence::default();
        let mut conversation = Self { shared, run_id, slot, number, requests, replies, sequence };
        let opened = reply(Reply::Opened(v1::TrainOpened { resume_step }));
        let _ = conversation.send(opened).await;
        Ok(conversation)
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
                biased;
                () = told(&mut ended) => return Err(self.end().await),
                request = self.requests.recv() => request,
            };
            let Some(request) = request else {
                // A deliberate end, unlike a broken connection: the run is not resumed from memory.
                self.shared.runs.forget(&self.run_id);
                return Ok(Hangup);
            };
            for part in self.answer(request?).await? {
                if self.send(part).await.is_err() {
                    return Ok(Hangup);
                }
            }
        }
    }

    /// The last word of a node that ends. What the tail has come to is on disk by then, so that the edge, which
    /// stays where it is, finds it again after the restart.
    async fn end(&mut self) -> Status {
        match self.keep().await {
            Ok(step) => tracing::info!(run = self.run_id, step, "kept"),
            Err(status) => tracing::warn!(run = self.run_id, %status, "not kept"),
        }
        Status::unavailable("the cloud is ending; open the run again")
    }

    /// Edge and tail are at the same step but for one case: a step that is prepared, which the edge has taken and
    /// this node has not. So its commit is awaited; without it, the step before is what is kept.
    async fn keep(&mut self) -> Result<u64, Status> {
        let awaits_commit = self.run_of_mine().await?.awaits_commit();
        let commit = match awaits_commit {
            true => self.last_commit().await,
            false => None,
        };
        let mut run = self.run_of_mine().await?;
        if let Some(commit) = commit {
            run.commit(commit, &self.shared).await?;
        }
        run.keep().await
    }

    /// The next message, if it is a commit and comes in time. Any other says that the edge has not taken the step.
    async fn last_commit(&mut self) -> Option<v1::TrainCommit> {
        match timeout(LAST_COMMIT, self.requests.recv()).await {
            Ok(Some(Ok(Request::Commit(commit)))) => Some(commit),
            _ => None,
        }
    }

    async fn send(&mut self, reply: v1::TrainReply) -> Result<(), ()> {
        let reply = self.sequence.stamp(reply);
        self.replies.send(Ok(reply)).await.map_err(|_| ())
    }

    /// The messages that answer one request, none for a commit.
    async fn answer(&mut self, request: Request) -> Result<Vec<v1::TrainReply>, Status> {
        let shared = self.shared.clone();
        let mut run = self.run_of_mine().await?;
        Ok(match request {
            Request::Prepare(mut micro) => match micro.labels.take() {
                Some(labels) => {
                    let prepared = run.prepare(micro, labels, &shared).await?;
                    wire::send(prepared, |p| reply(Reply::Prepared(p)))
                }
                None => {
                    let forwarded = run.forward(micro, &shared).await?;
                    wire::send(forwarded, |f| reply(Reply::Forwarded(f)))
                }
            },
            Request::Backward { id, index, gradient } => {
                let prepared = run.backward(id, index, gradient, &shared).await?;
                wire::send(prepared, |p| reply(Reply::Prepared(p)))
            }
            Request::Commit(commit) => {
                run.commit(commit, &shared).await?;
                Vec::new()
            }
            Request::Checkpoint(asked) => {
                vec![reply(Reply::Checkpointed(run.checkpoint(asked, &shared).await?))]
            }
            Request::Evaluate { activation, labels: None } => {
                let forwarded = run.infer(activation, &shared).await?;
                wire::send(forwarded, |f| reply(Reply::Forwarded(f)))
            }
            Request::Evaluate { activation, labels: Some(labels) } => {
                let done = run.evaluate(activation, labels, &shared).await?;
                vec![reply(Reply::Evaluated(done))]
            }
        })
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

/// Completes when the node is asked to end.
async fn told(ended: &mut watch::Receiver<bool>) {
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Numbered when it is sent.
fn reply(kind: Reply) -> v1::TrainReply {
    v1::TrainReply { number: 0, kind: Some(kind) }
}
