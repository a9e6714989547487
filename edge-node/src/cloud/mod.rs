//! The edge's view of the cloud: typed calls of the split protocol.

mod breaker;
mod clock;
mod deadline;
mod error;
mod failover;
mod retry;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use cleave_shared::{
    checkpoint::AdapterBase,
    codec::F32,
    deadline::Deadline,
    http2::MAX_MESSAGE_BYTES,
    profile::{self, ComputeProfile},
    security::Credentials,
    telemetry::trace,
    wire::{
        self, NamedTensors,
        v1::{
            self, group_service_client::GroupServiceClient,
            split_service_client::SplitServiceClient,
        },
    },
};
use tokio::sync::Notify;
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use self::clock::ClockOffset;
pub use self::{
    breaker::BreakerLayer, clock::Exchange, deadline::DeadlineLayer, error::explain,
    failover::FailoverLayer, retry::Again,
};

/// Largest set of weights that is fetched, bytes; a limit against a broken peer, not a size.
const MAX_WEIGHTS_BYTES: usize = 8 << 30;

/// A channel whose calls say who asks, and for which request.
type Known = InterceptedService<Channel, Caller>;

/// What is added to each call.
#[derive(Clone)]
struct Caller(Credentials);

impl Interceptor for Caller {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut request = self.0.call(request)?;
        trace::inject(request.metadata_mut());
        Ok(request)
    }
}

/// One cloud node, over one channel; clones share both.
#[derive(Clone)]
pub struct CloudClient {
    client: SplitServiceClient<Known>,
    groups: GroupServiceClient<Known>,
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    start: Instant,
    clock: Mutex<ClockOffset>,
    /// Which cloud process answered last; 0 before the first.
    instance: AtomicU64,
    /// Told when a cloud lacks what it was asked for: another one has taken over.
    lost: Notify,
}

/// A tail to run.
#[derive(Debug, Clone)]
pub struct InferCall {
    pub agreement: v1::Agreement,
    pub activation: Vec<v1::Tensor>,
    /// Bytes of the output that is expected.
    pub output_bytes: usize,
    /// When the answer is of no use any more, if ever.
    pub deadline: Option<Deadline>,
}

/// What the cloud says when it agrees.
#[derive(Debug)]
pub struct Bound {
    /// Stages whose weights it lacks.
    pub missing_stages: Vec<String>,
    /// Time under way, there and back, ms.
    pub rtt_ms: f64,
    /// Of its software.
    pub version: String,
    /// Its time of day, ms since 1970.
    pub wall_clock_ms: u64,
}

/// What the tail answered, and what the way there and back took.
#[derive(Debug)]
pub struct InferAnswer {
    pub reply: v1::InferReply,
    pub uplink_ms: f64,
    pub downlink_ms: f64,
}

impl CloudClient {
    pub fn new(channel: Channel, credentials: Credentials, address: &str) -> Self {
        let caller = Caller(credentials);
        let groups = GroupServiceClient::with_interceptor(channel.clone(), caller.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let client = SplitServiceClient::with_interceptor(channel, caller)
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let clock = Mutex::default();
        let (start, lost) = (Instant::now(), Notify::new());
        let instance = AtomicU64::default();
        let shared = Shared { address: address.into(), start, clock, instance, lost };
        Self { client, groups, shared: Arc::new(shared) }
    }

    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Which cloud process answered last; none before the first.
    pub fn instance(&self) -> Option<u64> {
        Some(self.shared.instance.load(Ordering::Relaxed)).filter(|instance| *instance != 0)
    }

    /// The handshake.
    pub async fn bind(&self, agreement: &v1::Agreement) -> Result<Bound, Status> {
        let request = v1::BindRequest { agreement: Some(agreement.clone()) };
        let sent_ns = self.now_ns();
        let reply = self.client.clone().bind(request).await?.into_inner();
        let (uplink_ms, downlink_ms) = self.observe(Exchange {
            instance: reply.instance,
            sent_ns,
            arrived_ns: reply.received_ns,
            left_ns: reply.sent_ns,
            returned_ns: self.now_ns(),
        });
        Ok(Bound {
            missing_stages: reply.missing_stages,
            rtt_ms: uplink_ms + downlink_ms,
            version: reply.version,
            wall_clock_ms: reply.wall_clock_ms,
        })
    }

    /// Waits until a cloud has said that it lacks weights of what is deployed.
    pub async fn lost(&self) {
        self.shared.lost.notified().await;
    }

    /// Runs the tail on one activation, in one message or in chunks, whichever its size needs.
    pub async fn infer(&self, call: InferCall) -> Result<InferAnswer, Status> {
        let answer = self.try_infer(call).await;
        if answer.as_ref().is_err_and(|status| status.code() == Code::NotFound) {
            self.shared.lost.notify_one();
        }
        answer
    }

    async fn try_infer(&self, call: InferCall) -> Result<InferAnswer, Status> {
        let bytes: usize = call.activation.iter().map(|t| t.data.len()).sum();
        let in_one = bytes.max(call.output_bytes) <= wire::CHUNK_BYTES;
        let limit = call.output_bytes;
        let InferCall { agreement, activation, deadline, .. } = call;
        let request = v1::InferRequest { agreement: Some(agreement), activation };
        let sent_ns = self.now_ns();
        let reply = if in_one {
            self.client.clone().infer(within(deadline, request)).await?.into_inner()
        } else {
            self.infer_chunked(request, limit, deadline).await?
        };
        let exchange = Exchange {
            instance: reply.instance,
            sent_ns,
            arrived_ns: reply.received_ns,
            left_ns: reply.sent_ns,
            returned_ns: self.now_ns(),
        };
        let (uplink_ms, downlink_ms) = self.observe(exchange);
        Ok(InferAnswer { reply, uplink_ms, downlink_ms })
    }

    async fn infer_chunked(
        &self,
        request: v1::InferRequest,
        limit: usize,
        deadline: Option<Deadline>,
    ) -> Result<v1::InferReply, Status> {
        use v1::{infer_part::Kind, infer_reply_part::Kind as Out};
        let parts = wire::send(request, |r| v1::InferPart { kind: Some(Kind::Request(r)) });
        let outgoing = within(deadline, tokio_stream::iter(parts));
        let mut replies = self.client.clone().infer_chunked(outgoing).await?.into_inner();
        match replies.message().await?.and_then(|p| p.kind) {
            Some(Out::Reply(first)) => wire::receive(first, limit, &mut replies).await,
            _ => Err(Status::internal("the cloud's first part is not a reply")),
        }
    }

    /// The times of the model's stages on the cloud's machine.
    pub async fn profile(
        &self,
        agreement: v1::Agreement,
        of: profile::Request,
        codecs: Vec<String>,
    ) -> Result<ComputeProfile, Status> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let request = v1::ProfileRequest {
            agreement: Some(agreement),
            batch: number(of.batch),
            length: number(of.length),
            rounds: number(of.rounds),
            training: of.training,
            codecs,
        };
        let reply = self.client.clone().profile(request).await?.into_inner();
        serde_json::from_str(&reply.profile)
            .map_err(|e| Status::internal(format!("the cloud's profile: {e}")))
    }

    /// Sends so many bytes and gets so many; gives the time there and back, ms.
    pub async fn probe(&self, up: usize, down: usize) -> Result<(f64, f64), Status> {
        let payload = vec![0; up].into();
        let request = v1::ProbeRequest { payload, reply_bytes: down as u32 };
        let sent_ns = self.now_ns();
        let reply = self.client.clone().probe(request).await?.into_inner();
        Ok(self.observe(Exchange {
            instance: reply.instance,
            sent_ns,
            arrived_ns: reply.received_ns,
            left_ns: reply.sent_ns,
            returned_ns: self.now_ns(),
        }))
    }

    /// Weights of stages that the cloud holds, and what they are added to if they are adapters.
    pub async fn fetch_weights(
        &self,
        weights: &str,
        stages: Vec<String>,
    ) -> Result<(NamedTensors, Option<AdapterBase>), Status> {
        let request = v1::FetchWeightsRequest { weights: weights.into(), stages };
        let mut parts = self.client.clone().fetch_weights(request).await?.into_inner();
        match parts.message().await?.and_then(|p| p.kind) {
            Some(v1::weights_part::Kind::Weights(first)) => {
                let message = wire::receive(first, MAX_WEIGHTS_BYTES, &mut parts).await?;
                let adapters = AdapterBase::from_json(&message.adapters);
                let adapters = adapters.map_err(Status::internal)?;
                Ok((wire::decode(message.tensors, &F32)?, adapters))
            }
            _ => Err(Status::internal("the cloud's first part has no weights")),
        }
    }

    /// Gives the cloud weights of stages that it lacks.
    pub async fn store_weights(
        &self,
        weights: &str,
        stages: Vec<String>,
        tensors: NamedTensors,
        adapters: Option<AdapterBase>,
    ) -> Result<(), Status> {
        let tensors = wire::encode(tensors, &F32);
        let adapters = adapters.map(|a| a.to_json()).unwrap_or_default();
        let message = v1::StageWeights { weights: weights.into(), tensors, stages, adapters };
        let wrap = |w| v1::WeightsPart { kind: Some(v1::weights_part::Kind::Weights(w)) };
        let parts = tokio_stream::iter(wire::send(message, wrap));
        self.client.clone().store_weights(parts).await?;
        Ok(())
    }

    /// Opens a training stream.
    pub async fn train(
        &self,
        requests: tokio_stream::wrappers::ReceiverStream<v1::TrainRequest>,
    ) -> Result<tonic::Streaming<v1::TrainReply>, Status> {
        Ok(self.client.clone().train(requests).await?.into_inner())
    }

    /// Joins a group of edges that learn together.
    pub async fn join_group(
        &self,
        requests: tokio_stream::wrappers::ReceiverStream<v1::GroupRequest>,
    ) -> Result<tonic::Streaming<v1::GroupReply>, Status> {
        Ok(self.groups.clone().join(requests).await?.into_inner())
    }

    /// Opens a generation stream; its first messages may wait in `requests` already.
    pub async fn generate(
        &self,
        requests: tokio_stream::wrappers::ReceiverStream<v1::GenerateRequest>,
    ) -> Result<tonic::Streaming<v1::GenerateReply>, Status> {
        Ok(self.client.clone().generate(requests).await?.into_inner())
    }

    fn now_ns(&self) -> u64 {
        self.ns_at(Instant::now())
    }

    /// An instant on the clock that exchanges have.
    pub fn ns_at(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.shared.start).as_nanos() as u64
    }

    /// Learns from an exchange; gives its time up and down, ms.
    pub fn observe(&self, exchange: Exchange) -> (f64, f64) {
        self.shared.instance.store(exchange.instance, Ordering::Relaxed);
        self.shared.clock.lock().unwrap_or_else(|p| p.into_inner()).observe(exchange)
    }
}

/// A request that says by when its answer is of use (`grpc-timeout`).
fn within<T>(deadline: Option<Deadline>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline.left());
    }
    request
}
