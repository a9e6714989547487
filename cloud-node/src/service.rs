//! The split protocol's service: takes messages apart, hands them on, puts replies together.

use std::{
    pin::Pin,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cleave_shared::{
    checkpoint::{AdapterBase, Library, WeightsId},
    codec::F32,
    compute::ComputeError,
    deadline::Deadline,
    model::{ModelError, ModelSpec},
    security, timed,
    wire::{
        self, Assembler,
        v1::{self, split_service_server::SplitService},
    },
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    clock::Clock,
    generate::Generation,
    handshake::Handshake,
    inference::{Caller, Inference},
    profile::Profiler,
    train::Trainer,
    weights::{library_status, store_status},
};

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One cloud node's answer to every call.
pub struct Split {
    pub spec: ModelSpec,
    pub handshake: Arc<Handshake>,
    pub inference: Arc<Inference>,
    pub trainer: Trainer,
    pub generation: Generation,
    pub profiler: Profiler,
    pub library: Arc<Library>,
    pub clock: Arc<Clock>,
    /// Largest activation, bytes.
    pub limit: usize,
}

impl Split {
    fn caller<T>(&self, request: &Request<T>) -> Caller {
        Caller {
            edge: edge(request),
            received_ns: self.clock.now_ns(),
            by: Deadline::of(request.metadata()),
        }
    }
}

#[tonic::async_trait]
impl SplitService for Split {
    async fn bind(
        &self,
        request: Request<v1::BindRequest>,
    ) -> Result<Response<v1::BindReply>, Status> {
        let received_ns = self.clock.now_ns();
        let agreement = request.into_inner().agreement;
        let cut = self.handshake.check(agreement.as_ref()).await?.cut;
        let warm = cut.clone();
        let stages = self.spec.stage_names().split_off(cut.split);
        let library = self.library.clone();
        let bound = move || {
            let missing = library.missing(&cut.weights, &stages).map_err(library_status)?;
            if let (WeightsId::Run { run, step }, true) = (&cut.weights, missing.is_empty()) {
                // An edge serves these from now on; training that goes on must not remove them.
                library.store().pin(run, *step).map_err(store_status)?;
            }
            Ok(missing)
        };
        let missing_stages = blocking(bound).await?;
        if missing_stages.is_empty() {
            // An edge binds before it switches: its first request at the new cut finds the tail made. What
            // cannot be made is that request's error.
            let _ = self.inference.tails.get(&warm, &self.inference.pool).await;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Response::new(v1::BindReply {
            missing_stages,
            received_ns,
            version: env!("CARGO_PKG_VERSION").into(),
            wall_clock_ms: since.as_millis() as u64,
            instance: self.clock.instance,
            sent_ns: self.clock.now_ns(),
        }))
    }

    async fn infer(
        &self,
        request: Request<v1::InferRequest>,
    ) -> Result<Response<v1::InferReply>, Status> {
        let caller = self.caller(&request);
        // A unary call has no chunks: the assembler checks sizes and that nothing is missing.
        let request = Assembler::new(request.into_inner(), self.limit)?.finish()?;
        Ok(Response::new(self.inference.run(request, caller).await?))
    }

    type InferChunkedStream = Replies<v1::InferReplyPart>;

    async fn infer_chunked(
        &self,
        request: Request<Streaming<v1::InferPart>>,
    ) -> Result<Response<Self::InferChunkedStream>, Status> {
        use v1::{infer_part::Kind, infer_reply_part::Kind as Out};
        let caller = self.caller(&request);
        let mut parts = timed::in_time(request.into_inner());
        let Some(Kind::Request(first)) = parts.next().await.transpose()?.and_then(|p| p.kind)
        else {
            return Err(Status::invalid_argument("the first part is not a request"));
        };
        let request = wire::receive(first, self.limit, &mut parts).await?;
        let caller = Caller { received_ns: self.clock.now_ns(), ..caller };
        let reply = self.inference.run(request, caller).await?;
        let parts = wire::send(reply, |r| v1::InferReplyPart { kind: Some(Out::Reply(r)) });
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok)))))
    }

    async fn profile(
        &self,
        request: Request<v1::ProfileRequest>,
    ) -> Result<Response<v1::ProfileReply>, Status> {
        Ok(Response::new(self.profiler.run(request.into_inner()).await?))
    }

    async fn probe(
        &self,
        request: Request<v1::ProbeRequest>,
    ) -> Result<Response<v1::ProbeReply>, Status> {
        let received_ns = self.clock.now_ns();
        let asked = request.into_inner();
        let bytes = asked.reply_bytes as usize;
        if asked.payload.len().max(bytes) > wire::CHUNK_BYTES {
            let text = format!("a probe has at most {} bytes each way", wire::CHUNK_BYTES);
            return Err(Status::invalid_argument(text));
        }
        let payload = vec![0; bytes].into();
        let (sent_ns, instance) = (self.clock.now_ns(), self.clock.instance);
        Ok(Response::new(v1::ProbeReply { payload, received_ns, sent_ns, instance }))
    }

    type TrainStream = Replies<v1::TrainReply>;

    async fn train(
        &self,
        request: Request<Streaming<v1::TrainRequest>>,
    ) -> Result<Response<Self::TrainStream>, Status> {
        let replies = self.trainer.start(request.into_inner()).await?;
        Ok(Response::new(Box::pin(replies)))
    }

    type GenerateStream = Replies<v1::GenerateReply>;

    async fn generate(
        &self,
        request: Request<Streaming<v1::GenerateRequest>>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let owner = edge(&request);
        let replies = self.generation.start(&owner, request.into_inner()).await?;
        Ok(Response::new(Box::pin(replies)))
    }

    type FetchWeightsStream = Replies<v1::WeightsPart>;

    async fn fetch_weights(
        &self,
        request: Request<v1::FetchWeightsRequest>,
    ) -> Result<Response<Self::FetchWeightsStream>, Status> {
        let v1::FetchWeightsRequest { weights: id, stages } = request.into_inner();
        let weights_id = parse_id(&id)?;
        let (library, names) = (self.library.clone(), stages.clone());
        let (tensors, adapters) = blocking(move || {
            let WeightsId::Run { run, step } = &weights_id else {
                let text = format!("{weights_id} is not stored here: the edge has it as well");
                return Err(Status::invalid_argument(text));
            };
            library.check_present(&weights_id, &names).map_err(library_status)?;
            let store = library.store();
            let tensors = store.export(run, *step, &names).map_err(store_status)?;
            Ok((tensors, store.adapters(run, *step).map_err(store_status)?))
        })
        .await?;
        let tensors = wire::encode(tensors, &F32);
        let adapters = adapters.map(|a| a.to_json()).unwrap_or_default();
        let message = v1::StageWeights { weights: id, tensors, stages, adapters };
        let wrap = |w| v1::WeightsPart { kind: Some(v1::weights_part::Kind::Weights(w)) };
        let parts = wire::send(message, wrap).into_iter().map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn store_weights(
        &self,
        request: Request<Streaming<v1::WeightsPart>>,
    ) -> Result<Response<v1::StoreWeightsReply>, Status> {
        use v1::weights_part::Kind;
        let mut parts = timed::in_time(request.into_inner());
        let Some(Kind::Weights(first)) = parts.next().await.transpose()?.and_then(|p| p.kind)
        else {
            return Err(Status::invalid_argument("the first part has no weights"));
        };
        let message = wire::receive(first, self.limit, &mut parts).await?;
        let WeightsId::Run { run, step } = parse_id(&message.weights)? else {
            return Err(Status::invalid_argument("only weights of a run can be stored"));
        };
        let known = self.spec.stage_names();
        if let Some(unknown) = message.stages.iter().find(|s| !known.contains(s)) {
            return Err(Status::invalid_argument(format!("the model has no stage {unknown:?}")));
        }
        let tensors = wire::decode(message.tensors, &F32)?;
        let adapters =
            AdapterBase::from_json(&message.adapters).map_err(Status::invalid_argument)?;
        let store = self.library.store().clone();
        let added =
            move || store.add(&run, step, &message.stages, tensors, adapters).map_err(store_status);
        blocking(added).await?;
        Ok(Response::new(v1::StoreWeightsReply {}))
    }
}

/// The edge's name, or its machine.
fn edge<T>(request: &Request<T>) -> String {
    security::who(request.extensions()).unwrap_or_default()
}

fn parse_id(text: &str) -> Result<WeightsId, Status> {
    text.parse().map_err(store_status)
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
        ComputeError::Busy { .. } | ComputeError::Late { .. } => {
            security::no_room(error.to_string())
        }
        ComputeError::Panicked(_) => Status::internal(error.to_string()),
    }
}
