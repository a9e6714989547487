//! One edge's stream: its messages, checked and whole, to the coordinator; the coordinator's replies, in
//! pieces, to the edge.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use cleave_shared::{
    checkpoint,
    codec::{F32, SharedCodec},
    model::StageState,
    wire::{
        self, NamedTensors,
        v1::{self, group_reply::Kind as Reply, group_request::Kind},
    },
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Shared, steps::Computed, strategy::EdgeBatch};

/// Numbers streams, so that a word of one that was replaced is not taken for its successor's.
static STREAMS: AtomicU64 = AtomicU64::new(1);

/// What happens to a group.
pub enum Event {
    Joined(Member),
    Left { edge: usize, stream: u64 },
    Said { edge: usize, stream: u64, said: Said },
    Computed(Computed),
}

/// An edge that is there.
pub struct Member {
    pub edge: usize,
    pub stream: u64,
    pub samples: u64,
    /// Was too slow, and has not been heard of since.
    pub late: bool,
    pub replies: mpsc::UnboundedSender<Result<Reply, Status>>,
}

/// What an edge says.
pub enum Said {
    Step { round: u64, step: u64, batch: EdgeBatch },
    HeadGradient { round: u64, step: u64, gradient: NamedTensors },
    Done { round: u64, head: Vec<StageState> },
    Evaluate { round: u64, batch: EdgeBatch },
    Validated { round: u64 },
}

impl Member {
    /// A member that is gone is noticed by its stream's end.
    pub fn reply(&self, reply: Reply) {
        let _ = self.replies.send(Ok(reply));
    }
}

/// Joins, and hands messages on in both directions until either side ends.
pub fn start(
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    codec: SharedCodec,
    join: v1::GroupJoin,
    requests: Streaming<v1::GroupRequest>,
    outgoing: mpsc::Sender<Result<v1::GroupReply, Status>>,
) -> Result<(), Status> {
    let (replies, waiting) = mpsc::unbounded_channel();
    let split = join.agreement.map_or(0, |agreement| agreement.split_point) as usize;
    let head_stages = shared.spec.stage_names()[..split].to_vec();
    let (edge, stream) = (join.edge as usize, STREAMS.fetch_add(1, Ordering::Relaxed));
    let member =
        Member { edge, stream, samples: join.samples, late: false, replies: replies.clone() };
    let closing = || Status::unavailable("the group is closing; join again");
    events.send(Event::Joined(member)).map_err(|_| closing())?;
    tokio::spawn(send_all(waiting, outgoing));
    tokio::spawn(async move {
        let listener = Listener { shared, events, codec, edge, stream, head_stages, requests };
        if let Err(status) = listener.run().await {
            tracing::info!(edge, %status, "an edge's stream failed");
            let _ = replies.send(Err(status));
        }
    });
    Ok(())
}

async fn send_all(
    mut waiting: mpsc::UnboundedReceiver<Result<Reply, Status>>,
    outgoing: mpsc::Sender<Result<v1::GroupReply, Status>>,
) {
    while let Some(reply) = waiting.recv().await {
        let parts = match reply {
            Ok(reply) => {
                let parts = wire::send(reply, |kind| v1::GroupReply { kind: Some(kind) });
                parts.into_iter().map(Ok).collect()
            }
            Err(status) => vec![Err(status)],
        };
        for part in parts {
            let last = part.is_err();
            if outgoing.send(part).await.is_err() || last {
                return;
            }
        }
    }
}

struct Listener {
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    /// Of activations.
    codec: SharedCodec,
    edge: usize,
    stream: u64,
    head_stages: Vec<String>,
    requests: Streaming<v1::GroupRequest>,
}

impl Listener {
    async fn run(mut self) -> Result<(), Status> {
        let outcome = self.listen().await;
        let _ = self.events.send(Event::Left { edge: self.edge, stream: self.stream });
        outcome
    }

    async fn listen(&mut self) -> Result<(), Status> {
        while let Some(request) = self.requests.message().await? {
            let kind = request.kind.ok_or_else(|| Status::invalid_argument("an empty message"))?;
            let kind = wire::receive(kind, self.shared.limit, &mut self.requests).await?;
            let said = self.understand(kind)?;
            let (edge, stream) = (self.edge, self.stream);
            if self.events.send(Event::Said { edge, stream, said }).is_err() {
                return Err(Status::unavailable("the group is closing; join again"));
            }
        }
        Ok(())
    }

    fn understand(&self, kind: Kind) -> Result<Said, Status> {
        match kind {
            Kind::Step(v1::GroupStep { round, step, activation, labels }) => {
                Ok(Said::Step { round, step, batch: self.batch(activation, labels)? })
            }
            Kind::HeadGradient(v1::HeadGradient { round, step, gradient }) => {
                let gradient = wire::decode(gradient, &F32)?;
                Ok(Said::HeadGradient { round, step, gradient })
            }
            Kind::Done(v1::TurnDone { round, head }) => {
                let head = head.ok_or_else(|| Status::invalid_argument("a turn without a head"))?;
                let head = checkpoint::unpack(head, &self.head_stages)?;
                Ok(Said::Done { round, head })
            }
            Kind::Evaluate(v1::GroupEvaluate { round, activation, labels }) => {
                Ok(Said::Evaluate { round, batch: self.batch(activation, labels)? })
            }
            Kind::Validated(v1::Validated { round }) => Ok(Said::Validated { round }),
            Kind::Join(_) => Err(Status::invalid_argument("the edge has joined already")),
            Kind::Chunk(_) => Err(Status::invalid_argument("a chunk of no message")),
        }
    }

    fn batch(
        &self,
        activation: Vec<v1::Tensor>,
        labels: Option<v1::Tensor>,
    ) -> Result<EdgeBatch, Status> {
        let (edge, labels) = (self.edge, wire::labels(labels)?);
        Ok(EdgeBatch { edge, activation: wire::decode(activation, self.codec.as_ref())?, labels })
    }
}
