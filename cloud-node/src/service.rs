//! The split protocol's service: takes messages apart, hands them on, puts replies together.

use std::{pin::Pin, sync::Arc};

use cleave_shared::{
    checkpoint::{RunStore, WeightsId},
    codec::F32,
    compute::ComputeError,
    model::{ModelError, ModelSpec},
    wire::{
        self, Assembler, Carrier,
        v1::{self, split_service_server::SplitService},
    },
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::{clock::Clock, handshake::Handshake, inference::Inference, train::Trainer, weights};

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One cloud node's answer to every call.
pub struct Split {
    pub spec: ModelSpec,
    pub handshake: Arc<Handshake>,
    pub inference: Arc<Inference>,
    pub trainer: Trainer,
    pub store: Arc<RunStore>,
    pub clock: Arc<Clock>,
    /// Largest activation, bytes.
    pub limit: usize,
}

#[tonic::async_trait]
impl SplitService for Split {
    async fn bind(
        &self,
        request: Request<v1::BindRequest>,
    ) -> Result<Response<v1::BindReply>, Status> {
        let received_ns = self.clock.now_ns();
        let agreement = request.into_inner().agreement;
        let cut = self.handshake.check(agreement.as_ref())?;
        let stages = self.spec.stage_names().split_off(cut.split);
        let store = self.store.clone();
        let missing_stages =
            blocking(move || weights::missing(&store, &cut.weights, &stages)).await?;
        let (sent_ns, instance) = (self.clock.now_ns(), self.clock.instance);
        Ok(Response::new(v1::BindReply { missing_stages, received_ns, sent_ns, instance }))
    }

    async fn infer(
        &self,
        request: Request<v1::InferRequest>,
    ) -> Result<Response<v1::InferReply>, Status> {
        let received_ns = self.clock.now_ns();
        // A unary call has no chunks: the assembler checks sizes and that nothing is missing.
        let request = Assembler::new(request.into_inner(), self.limit)?.finish()?;
        Ok(Response::new(self.inference.run(request, received_ns).await?))
    }

    type InferChunkedStream = Replies<v1::InferReplyPart>;

    async fn infer_chunked(
        &self,
        request: Request<Streaming<v1::InferPart>>,
    ) -> Result<Response<Self::InferChunkedStream>, Status> {
        use v1::{infer_part::Kind, infer_reply_part::Kind as Out};
        let mut parts = request.into_inner();
        let Some(Kind::Request(first)) = parts.message().await?.and_then(|p| p.kind) else {
            return Err(Status::invalid_argument("the first part is not a request"));
        };
        let request = assemble(first, self.limit, async || match parts.message().await? {
            Some(v1::InferPart { kind: Some(Kind::Chunk(chunk)) }) => Ok(Some(chunk)),
            Some(_) => Err(Status::invalid_argument("a part that is not a chunk")),
            None => Ok(None),
        });
        let request = request.await?;
        let mut reply = self.inference.run(request, self.clock.now_ns()).await?;
        let chunks = wire::split(&mut reply);
        let parts = std::iter::once(Out::Reply(reply)).chain(chunks.into_iter().map(Out::Chunk));
        let parts = parts.map(|kind| Ok(v1::InferReplyPart { kind: Some(kind) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    type TrainStream = Replies<v1::TrainReply>;

    async fn train(
        &self,
        request: Request<Streaming<v1::TrainRequest>>,
    ) -> Result<Response<Self::TrainStream>, Status> {
        let replies = self.trainer.start(request.into_inner()).await?;
        Ok(Response::new(Box::pin(replies)))
    }

    type FetchWeightsStream = Replies<v1::WeightsPart>;

    async fn fetch_weights(
        &self,
        request: Request<v1::FetchWeightsRequest>,
    ) -> Result<Response<Self::FetchWeightsStream>, Status> {
        let v1::FetchWeightsRequest { weights: id, stages } = request.into_inner();
        let weights_id = parse_id(&id)?;
        let (store, names) = (self.store.clone(), stages.clone());
        let tensors = blocking(move || weights::stored(&store, &weights_id, &names)).await?;
        let mut message =
            v1::StageWeights { weights: id, tensors: wire::encode(tensors, &F32), stages };
        let chunks = wire::split(&mut message);
        use v1::weights_part::Kind;
        let parts =
            std::iter::once(Kind::Weights(message)).chain(chunks.into_iter().map(Kind::Chunk));
        let parts = parts.map(|kind| Ok(v1::WeightsPart { kind: Some(kind) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn store_weights(
        &self,
        request: Request<Streaming<v1::WeightsPart>>,
    ) -> Result<Response<v1::StoreWeightsReply>, Status> {
        use v1::weights_part::Kind;
        let mut parts = request.into_inner();
        let Some(Kind::Weights(first)) = parts.message().await?.and_then(|p| p.kind) else {
            return Err(Status::invalid_argument("the first part has no weights"));
        };
        let message = assemble(first, self.limit, async || match parts.next().await.transpose()? {
            Some(v1::WeightsPart { kind: Some(Kind::Chunk(chunk)) }) => Ok(Some(chunk)),
            Some(_) => Err(Status::invalid_argument("a part that is not a chunk")),
            None => Ok(None),
        });
        let message = message.await?;
        let WeightsId::Run { run, step } = parse_id(&message.weights)? else {
            return Err(Status::invalid_argument("only weights of a run can be stored"));
        };
        let known = self.spec.stage_names();
        if let Some(unknown) = message.stages.iter().find(|s| !known.contains(s)) {
            return Err(Status::invalid_argument(format!("the model has no stage {unknown:?}")));
        }
        let tensors = wire::decode(message.tensors, &F32)?;
        let store = self.store.clone();
        blocking(move || {
            store.add(&run, step, &message.stages, tensors).map_err(weights::store_status)
        })
        .await?;
        Ok(Response::new(v1::StoreWeightsReply {}))
    }
}

/// Completes a message with the chunks that `next` gives.
pub async fn assemble<M: Carrier>(
    first: M,
    limit: usize,
    mut next: impl AsyncFnMut() -> Result<Option<v1::TensorChunk>, Status>,
) -> Result<M, Status> {
    let mut assembler = Assembler::new(first, limit)?;
    while assembler.is_open() {
        match next().await? {
            Some(chunk) => assembler.push(chunk.data)?,
            None => break,
        }
    }
    Ok(assembler.finish()?)
}

fn parse_id(text: &str) -> Result<WeightsId, Status> {
    text.parse().map_err(weights::store_status)
}

/// Disk work, away from the threads that serve the network.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.unwrap_or_else(|e| Err(Status::internal(format!("disk work failed: {e}"))))
}

/// An input that does not fit the model is the peer's mistake.
pub fn model_status(error: ModelError) -> Status {
    match error {
        ModelError::Optimizer { .. } | ModelError::Weight { .. } => {
            Status::internal(error.to_string())
        }
        _ => Status::invalid_argument(error.to_string()),
    }
}

pub fn compute_status(error: ComputeError) -> Status {
    match error {
        ComputeError::Busy { .. } => Status::resource_exhausted(error.to_string()),
        ComputeError::Panicked(_) => Status::internal(error.to_string()),
    }
}
