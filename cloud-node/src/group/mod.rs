//! Several edges that learn one model: sequential, SplitFed and parallel split learning.
//!
//! ```text
//!   edge 0 ─┐ stream: one edge's messages        ┌─ strategy: whose tail learns from what
//!   edge 1 ─┼───────▶ coordinator: the group ────┼─ session::Round: whose turn it is
//!   edge N ─┘   rounds, turns, barrier, deadline └─ TrainingRun: checkpoints
//! ```
//!
//! The group's model lives here, and an edge holds nothing between two turns: each turn begins with the
//! head as the group has it and ends with the head given back. So edges may come late, leave and be
//! started again at any time, a turn that broke is simply not part of the round, and the checkpoint of a
//! round's end is all that a restart needs. Only open turns take memory: `at_once` bounds them.

mod coordinator;
mod parallel;
mod rounds;
mod sequential;
mod splitfed_v1;
mod splitfed_v2;
mod steps;
mod strategy;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cleave_shared::{
    checkpoint::{Library, TrainingRun, check_run_id},
    codec::SharedCodec,
    compute::ComputePool,
    config::Config,
    model::{ModelSpec, Side},
    session::GroupSpec,
    wire::v1,
};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::{coordinator::Coordinator, stream::Event};
use crate::{
    handshake::Handshake,
    service::blocking,
    train::{RunFile, refuse},
    weights::library_status,
};

/// Replies that wait for the network: the chunks of a head.
const REPLIES: usize = 8;

/// The groups that have members.
#[derive(Clone)]
pub struct Groups {
    shared: Arc<Shared>,
}

/// What all groups share.
struct Shared {
    spec: ModelSpec,
    handshake: Arc<Handshake>,
    library: Arc<Library>,
    pool: ComputePool,
    limit: usize,
    keep_checkpoints: usize,
    most: usize,
    ended: watch::Receiver<bool>,
    groups: Mutex<HashMap<String, Group>>,
    /// Held while a group is opened, so that it is opened once.
    opening: AsyncMutex<()>,
}

/// Where a group's messages go, and what it is.
#[derive(Clone)]
struct Group {
    events: mpsc::UnboundedSender<Event>,
    activation_codec: SharedCodec,
    file: RunFile,
    rounds: u64,
}

impl Groups {
    pub fn new(
        config: &Config,
        handshake: Arc<Handshake>,
        library: Arc<Library>,
        pool: ComputePool,
        ended: watch::Receiver<bool>,
    ) -> Self {
        let shared = Shared {
            spec: config.model.clone(),
            handshake,
            library,
            pool,
            limit: config.cloud.max_activation_bytes,
            keep_checkpoints: config.train.keep_checkpoints,
            most: config.cloud.max_runs,
            ended,
            groups: Mutex::default(),
            opening: AsyncMutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Shared {
    /// The group that an edge joins; opened, from its newest checkpoint if it has one, by the first.
    async fn group(self: &Arc<Self>, join: &v1::GroupJoin) -> Result<Group, Status> {
        check_run_id(&join.run).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let agreed = self.handshake.check(join.agreement.as_ref()).await?;
        let (cut, activation_codec) = (agreed.cut, agreed.activation_codec);
        let gradient_codec = agreed.gradient_codec;
        if cut.split == 0 || cut.split == self.spec.stage_count() {
            let text = "a group needs stages on both sides: set another split_point";
            return Err(Status::invalid_argument(text));
        }
        let spec = GroupSpec::parse(&join.spec).map_err(Status::invalid_argument)?;
        let agreement = join.agreement.clone().unwrap_or_default();
        let file = RunFile {
            spec_hash: agreement.spec_hash,
            split_point: cut.split,
            last_split: None,
            weights: agreement.weights,
            training: spec.canonical(),
            activation_codec: activation_codec.name().into(),
            gradient_codec: gradient_codec.name().into(),
        };
        let _opening = self.opening.lock().await;
        let known = self.groups().get(&join.run).filter(|g| !g.events.is_closed()).cloned();
        if let Some(group) = known {
            refuse(&join.run, group.file.differences(&file))?;
            if group.rounds != join.rounds {
                let (own, theirs) = (group.rounds, join.rounds);
                let line = format!("train.epochs: edge has {theirs}, the group has {own}");
                refuse(&join.run, vec![line])?;
            }
            return Ok(group);
        }
        self.forget_closed();
        if self.groups().len() >= self.most {
            let text = format!("{} groups are being trained, which is the most", self.most);
            return Err(Status::resource_exhausted(text));
        }
        let run = TrainingRun {
            library: self.library.clone(),
            id: join.run.clone(),
            start: cut.weights,
            training: spec.training.clone(),
            side: Side::Cloud,
            range: 0..self.spec.stage_count(),
        };
        let (events, incoming) = mpsc::unbounded_channel();
        let (file_of_group, rounds) = (file.clone(), join.rounds);
        let group = Group { events: events.clone(), activation_codec, file: file_of_group, rounds };
        let shared = self.clone();
        let coordinator = blocking(move || {
            let (store, id) = (run.library.store().clone(), run.id.clone());
            file.claim(&store, &id)?;
            let round = store.steps(&id).last().copied().unwrap_or(0);
            tracing::info!(run = id, round, "group opened");
            let half = (run, cut.split);
            let opened = Coordinator::open(shared, half, gradient_codec, spec, rounds, round);
            opened.map_err(library_status)
        })
        .await?;
        tokio::spawn(coordinator.run(incoming, events));
        self.groups().insert(join.run.clone(), group.clone());
        Ok(group)
    }

    fn forget_closed(&self) {
        self.groups().retain(|_, group| !group.events.is_closed());
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl v1::group_service_server::GroupService for Groups {
    type JoinStream = ReceiverStream<Result<v1::GroupReply, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<v1::GroupRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|r| r.kind);
        let Some(v1::group_request::Kind::Join(join)) = first else {
            return Err(Status::invalid_argument("the first message of a member is not `join`"));
        };
        let group = self.shared.group(&join).await?;
        let (replies, outgoing) = mpsc::channel(REPLIES);
        let (events, codec) = (group.events, group.activation_codec);
        stream::start(self.shared.clone(), events, codec, join, requests, replies)?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
