//! The requests of a training stream, read ahead: while the tail computes one micro-batch, the next one
//! comes in.

use std::sync::Arc;

use cleave_shared::{
    codec::SharedCodec,
    tensor::HostTensor,
    wire::{
        self, Frames, NamedTensors,
        v1::{self, train_request::Kind},
    },
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::Shared;

/// Whole requests that wait for the tail: what the compute thread takes next, and one more behind it. With
/// what the connection's window holds, the uplink never waits for the tail.
const AHEAD: usize = 2;

/// A message of the edge, complete and checked.
pub enum Request {
    Prepare(MicroBatch),
    /// Of a micro-batch without labels.
    Backward {
        id: u64,
        index: u32,
        gradient: NamedTensors,
    },
    Commit(v1::TrainCommit),
    Checkpoint(v1::TrainCheckpoint),
    Evaluate {
        activation: NamedTensors,
        labels: Option<HostTensor>,
    },
}

/// A decoded micro-batch.
pub struct MicroBatch {
    /// Step that it belongs to.
    pub id: u64,
    pub index: u32,
    pub count: u32,
    /// Its share of the step's loss.
    pub share: f64,
    pub activation: NamedTensors,
    /// None if the last stages are the edge's.
    pub labels: Option<HostTensor>,
    pub want_gradient: bool,
    /// When all of it was here, by this node's clock.
    pub received_ns: u64,
}

type Requests = Frames<Streaming<v1::TrainRequest>>;

/// How what the edge sends is encoded.
pub struct Codecs {
    pub activation: SharedCodec,
    pub gradient: SharedCodec,
}

/// Reads until the stream ends; the receiver gets an error, if there is one, as the last thing.
pub fn read_ahead(
    mut requests: Requests,
    codecs: Codecs,
    shared: Arc<Shared>,
) -> mpsc::Receiver<Result<Request, Status>> {
    let (outgoing, incoming) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                request = next(&mut requests, &codecs, &shared) => request,
                () = outgoing.closed() => return,
            };
            let Some(request) = request.transpose() else { return };
            let failed = request.is_err();
            if outgoing.send(request).await.is_err() || failed {
                return;
            }
        }
    });
    incoming
}

async fn next(
    requests: &mut Requests,
    codecs: &Codecs,
    shared: &Shared,
) -> Result<Option<Request>, Status> {
    let Some(request) = requests.next().await.transpose()? else { return Ok(None) };
    let (codec, limit) = (codecs.activation.as_ref(), shared.limit);
    let request = match request.kind {
        Some(Kind::Prepare(micro)) => {
            let micro = wire::receive(micro, limit, requests).await?;
            let received_ns = shared.clock.now_ns();
            let v1::TrainPrepare { id, want_gradient, share, .. } = micro;
            if !(0.0..=1.0).contains(&share) {
                return Err(Status::invalid_argument(format!("share {share} is not in 0..=1")));
            }
            let (index, count) = (micro.micro_batch, micro.micro_batches);
            let labels = labels(micro.labels)?;
            let activation = wire::decode(micro.activation, codec)?;
            Request::Prepare(MicroBatch {
                id,
                index,
                count,
                share,
                activation,
                labels,
                want_gradient,
                received_ns,
            })
        }
        Some(Kind::Backward(backward)) => {
            let backward = wire::receive(backward, limit, requests).await?;
            let v1::TrainBackward { id, micro_batch, gradient } = backward;
            let gradient = wire::decode(gradient, codecs.gradient.as_ref())?;
            Request::Backward { id, index: micro_batch, gradient }
        }
        Some(Kind::Commit(commit)) => Request::Commit(commit),
        Some(Kind::Checkpoint(checkpoint)) => Request::Checkpoint(checkpoint),
        Some(Kind::Evaluate(batch)) => {
            let batch = wire::receive(batch, limit, requests).await?;
            let labels = labels(batch.labels)?;
            let activation = wire::decode(batch.activation, codec)?;
            Request::Evaluate { activation, labels }
        }
        Some(Kind::Open(_)) => {
            return Err(Status::invalid_argument("the stream is open already"));
        }
        Some(Kind::Chunk(_)) => {
            return Err(Status::invalid_argument("a chunk of no micro-batch or evaluation"));
        }
        None => return Err(Status::invalid_argument("an empty message")),
    };
    Ok(Some(request))
}

fn labels(sent: Option<v1::Tensor>) -> Result<Option<HostTensor>, Status> {
    let labels = sent.map(|tensor| wire::labels(Some(tensor)));
    Ok(labels.transpose()?)
}
