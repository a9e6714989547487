//! Training: one stream for each edge, one run behind it.
//!
//! A run outlives its stream: when the connection breaks, the edge opens another one and both
//! continue from the newest state that they share. `stream` is the conversation, `incoming` reads it ahead
//! of the computation, `run` is the state.

mod incoming;
mod run;
mod run_file;
mod stream;
mod table;

use std::sync::Arc;

use cleave_shared::{
    checkpoint::Library,
    compute::ComputePool,
    config::Config,
    model::ModelSpec,
    wire::{Frames, v1},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

pub use self::run_file::{RunFile, refuse};
use self::table::RunTable;
use crate::{clock::Clock, handshake::Handshake, tails::Tails};

/// Replies that wait for the network, chunks of gradients among them: the tail goes on with the next
/// micro-batch while gradients of up to this many MiB are on their way.
const REPLIES: usize = 64;

/// What every training stream shares.
pub struct Trainer {
    shared: Arc<Shared>,
}

struct Shared {
    spec: ModelSpec,
    handshake: Arc<Handshake>,
    library: Arc<Library>,
    tails: Arc<Tails>,
    pool: ComputePool,
    runs: RunTable,
    limit: usize,
    keep_checkpoints: usize,
    clock: Arc<Clock>,
    ended: watch::Receiver<bool>,
}

impl Trainer {
    pub fn new(
        config: &Config,
        handshake: Arc<Handshake>,
        library: Arc<Library>,
        tails: Arc<Tails>,
        pool: ComputePool,
        clock: Arc<Clock>,
        ended: watch::Receiver<bool>,
    ) -> Self {
        let shared = Shared {
            spec: config.model.clone(),
            handshake,
            library,
            tails,
            pool,
            runs: RunTable::new(config.cloud.max_runs),
            limit: config.cloud.max_activation_bytes,
            keep_checkpoints: config.train.keep_checkpoints,
            clock,
            ended,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Opens the run that the first message names, and answers the rest in a task of its own.
    pub async fn start(
        &self,
        requests: Streaming<v1::TrainRequest>,
    ) -> Result<ReceiverStream<Result<v1::TrainReply, Status>>, Status> {
        let mut requests = Frames::new(requests);
        let first = requests.next().await.transpose()?;
        let first = first.ok_or_else(|| Status::aborted("the stream ended before `open`"))?;
        let Some(v1::train_request::Kind::Open(open)) = first.kind else {
            return Err(Status::invalid_argument(
                "the first message of a training stream is not `open`",
            ));
        };
        let (replies, outgoing) = mpsc::channel(REPLIES);
        let shared = self.shared.clone();
        let conversation = stream::Conversation::open(shared, open, requests, replies).await?;
        tokio::spawn(conversation.run());
        Ok(ReceiverStream::new(outgoing))
    }
}
