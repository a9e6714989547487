//! Generation: one stream for each sequence, which owns the caches of its tail.
//!
//! The stream's task reads a step (the activation of the new positions), runs it on a compute thread
//! together with the draw of the next token, and answers with that token. When the stream ends, breaks,
//! or is idle for too long, the task ends, and with it the caches and the session.

use std::{sync::Arc, time::Duration};

use cleave_shared::{
    codec::SharedCodec,
    compute::ComputePool,
    config::Config,
    generate::{GenerateError, Lease, Limits, Sampler, Sequence, SessionError, SessionTable, Tail},
    model::ModelSpec,
    security,
    wire::{
        self,
        v1::{self, generate_request::Kind},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{
    handshake::{Cut, Handshake},
    inference::{Inference, ms_since},
    service::{compute_status, model_status},
    tails::Tails,
};

/// Replies that wait for the network; the edge has one step in flight.
const REPLIES: usize = 2;
/// Longest session id.
const MAX_ID: usize = 64;

/// What every generation stream shares.
pub struct Generation {
    spec: ModelSpec,
    handshake: Arc<Handshake>,
    tails: Arc<Tails>,
    pool: ComputePool,
    sessions: SessionTable,
    idle: Duration,
    /// Largest activation, bytes.
    limit: usize,
    ended: watch::Receiver<bool>,
}

impl Generation {
    pub fn new(config: &Config, inference: &Inference, ended: watch::Receiver<bool>) -> Self {
        let cloud = &config.cloud;
        let idle = Duration::from_secs(cloud.session_idle_s);
        let (sessions, bytes) = (cloud.max_sessions, cloud.max_cache_bytes);
        let limits = Limits { sessions, bytes, each: config.security.quota.share(), idle };
        Self {
            spec: config.model.clone(),
            handshake: inference.handshake.clone(),
            tails: inference.tails.clone(),
            pool: inference.pool.clone(),
            sessions: SessionTable::new(limits, "cloud"),
            idle,
            limit: cloud.max_activation_bytes,
            ended,
        }
    }

    /// Opens the session that the first message asks for, and answers the rest in a task of its own. It is
    /// the owner's, who may have a share of all sessions.
    pub async fn start(
        &self,
        owner: &str,
        mut requests: Streaming<v1::GenerateRequest>,
    ) -> Result<ReceiverStream<Result<v1::GenerateReply, Status>>, Status> {
        let first = tokio::time::timeout(self.idle, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("the stream was never opened"))?;
        let Some(Kind::Open(open)) = first?.and_then(|r| r.kind) else {
            let text = "the first message of a generation stream is not `open`";
            return Err(Status::invalid_argument(text));
        };
        let agreed = self.handshake.check(open.agreement.as_ref()).await?;
        let cut = agreed.cut;
        let (most, sampler) = self.checked(&cut, &open)?;
        let reserve = self.spec.cache_bytes(cut.split..self.spec.stage_count(), most);
        let lease = self.sessions.open(&open.session, owner, reserve).map_err(session_status)?;
        let tail = self.tails.get(&cut, &self.pool).await?;
        // Building a tail may have taken a while.
        lease.touch(0);
        let (replies, outgoing) = mpsc::channel(REPLIES);
        let session = Session {
            tail: Some(Tail::new(Sequence::new(tail, most), sampler)),
            lease,
            pool: self.pool.clone(),
            codec: agreed.activation_codec,
            limit: self.limit,
            requests,
            replies,
        };
        tokio::spawn(session.run(self.ended.clone()));
        Ok(ReceiverStream::new(outgoing))
    }

    /// Most positions and the sampler, if they make sense.
    fn checked(&self, cut: &Cut, open: &v1::GenerateOpen) -> Result<(usize, Sampler), Status> {
        let (positions, stages) = (self.spec.positions(), self.spec.stage_count());
        if positions == 0 || cut.split == stages {
            let model = self.spec.family_name();
            let text = match positions {
                0 => format!("the model {model} does not generate"),
                _ => format!("split point {stages} leaves the cloud no stage of {model}"),
            };
            return Err(Status::failed_precondition(text));
        }
        let most = open.max_positions as usize;
        if !(1..=positions).contains(&most) {
            let text = format!("max_positions {most} is out of range; allowed: 1 to {positions}");
            return Err(Status::invalid_argument(text));
        }
        if open.session.is_empty() || open.session.len() > MAX_ID {
            let text = format!("a session id has 1 to {MAX_ID} bytes");
            return Err(Status::invalid_argument(text));
        }
        let v1::Sampling { temperature, top_k, top_p, seed } =
            open.sampling.ok_or_else(|| Status::invalid_argument("`open` has no sampling"))?;
        let sampler = Sampler { temperature, top_k: top_k as usize, top_p, seed };
        sampler.check().map_err(|e| Status::invalid_argument(e.to_string()))?;
        Ok((most, sampler))
    }
}

/// One stream and its sequence.
struct Session {
    /// Taken while a step is computed.
    tail: Option<Tail>,
    lease: Lease,
    pool: ComputePool,
    codec: SharedCodec,
    limit: usize,
    requests: Streaming<v1::GenerateRequest>,
    replies: mpsc::Sender<Result<v1::GenerateReply, Status>>,
}

impl Session {
    /// Answers until the edge ends the stream, vanishes, makes a mistake or does nothing for too long.
    async fn run(mut self, mut ended: watch::Receiver<bool>) {
        let replies = self.replies.clone();
        let id = self.lease.id().to_string();
        let outcome = tokio::select! {
            outcome = self.converse() => outcome,
            // The edge has gone: nobody reads the replies.
            () = replies.closed() => Ok(()),
            _ = ended.wait_for(|ended| *ended) => {
                Err(Status::unavailable("the cloud is ending; generate again"))
            }
        };
        // Caches and session are free before the edge learns of the end.
        drop(self);
        if let Err(status) = outcome {
            tracing::info!(session = id, %status, "generation ended");
            // A peer that does not read gets nothing.
            let _ = replies.try_send(Err(status));
        }
    }

    async fn converse(&mut self) -> Result<(), Status> {
        loop {
            let expires = self.lease.expires().into();
            let step = timeout_at(expires, self.next_step()).await.map_err(|_| self.idle())?;
            let Some(step) = step? else { return Ok(()) };
            let reply = self.answer(step).await?;
            let sent = timeout_at(self.lease.expires().into(), self.replies.send(Ok(reply)));
            if sent.await.map_err(|_| self.idle())?.is_err() {
                return Ok(());
            }
        }
    }

    async fn next_step(&mut self) -> Result<Option<v1::GenerateStep>, Status> {
        match self.requests.message().await?.map(|r| r.kind) {
            None => Ok(None),
            Some(Some(Kind::Step(step))) => {
                Ok(Some(wire::receive(step, self.limit, &mut self.requests).await?))
            }
            Some(Some(Kind::Open(_))) => {
                Err(Status::invalid_argument("the stream is open already"))
            }
            Some(_) => Err(Status::invalid_argument("a message that is not a step")),
        }
    }

    async fn answer(&mut self, step: v1::GenerateStep) -> Result<v1::GenerateReply, Status> {
        let mut tail = self.tail.take().ok_or_else(|| Status::internal("the tail is gone"))?;
        let codec = self.codec.clone();
        let job = move || {
            let activation = wire::decode(step.activation, codec.as_ref())?;
            let begin = std::time::Instant::now();
            let choice = tail.next(&activation).map_err(generate_status)?;
            let reply = v1::GenerateReply {
                token: choice.id as i64,
                logprob: choice.logprob,
                tail_ms: ms_since(begin),
                cache_bytes: tail.cache_bytes() as u64,
            };
            Ok::<_, Status>((tail, reply))
        };
        // Sessions are few, and each has one step under way: it waits rather than lose its caches.
        let (tail, reply) = self.pool.run_patiently(job).await.map_err(compute_status)??;
        self.lease.touch(reply.cache_bytes as usize);
        self.tail = Some(tail);
        Ok(reply)
    }

    fn idle(&self) -> Status {
        let id = self.lease.id();
        Status::deadline_exceeded(format!("session {id:?} was idle for too long and has ended"))
    }
}

fn session_status(error: SessionError) -> Status {
    match error {
        SessionError::Taken(_) => Status::already_exists(error.to_string()),
        _ => security::no_room(error.to_string()),
    }
}

fn generate_status(error: GenerateError) -> Status {
    match error {
        GenerateError::Model(error) => model_status(error),
        GenerateError::Sample(error) => Status::internal(error.to_string()),
    }
}
