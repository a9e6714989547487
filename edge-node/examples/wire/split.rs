//! A cloud whose tail changes nothing: the split protocol with all that is done to an activation
//! and to an output between the socket and the model, and no model.

use std::pin::Pin;

use cleave_shared::{
    codec::F32,
    http2::{self, MAX_MESSAGE_BYTES},
    link::Profile,
    security::Listener,
    wire::{
        self, Assembler,
        v1::{
            self,
            split_service_server::{SplitService, SplitServiceServer},
        },
    },
};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Largest activation, bytes: `cloud.max_activation_bytes`.
const LIMIT: usize = 512 << 20;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// On the socket of a node, with the settings of the cloud's server.
pub async fn serve(listener: TcpListener) -> Result<(), String> {
    let service = SplitServiceServer::new(Echo).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let link = Profile::builtin("none").ok_or("there is no profile \"none\"")?;
    let served = http2::server(&link.uplink)
        .add_service(service)
        .serve_with_incoming(Listener::new(listener, None))
        .await;
    served.map_err(|e| format!("the server ended: {e}"))
}

struct Echo;

/// The activation as the output.
fn echo(request: v1::InferRequest) -> Result<v1::InferReply, Status> {
    let tensors = wire::decode(request.activation, &F32)?;
    Ok(v1::InferReply { output: wire::encode(tensors, &F32), ..Default::default() })
}

#[tonic::async_trait]
impl SplitService for Echo {
    async fn infer(&self, request: Request<v1::InferRequest>) -> Answer<v1::InferReply> {
        let request = Assembler::new(request.into_inner(), LIMIT)?.finish()?;
        Ok(Response::new(echo(request)?))
    }

    type InferChunkedStream = Replies<v1::InferReplyPart>;

    async fn infer_chunked(
        &self,
        request: Request<Streaming<v1::InferPart>>,
    ) -> Answer<Self::InferChunkedStream> {
        use v1::{infer_part::Kind, infer_reply_part::Kind as Out};
        let mut parts = request.into_inner();
        let Some(Kind::Request(first)) = parts.message().await?.and_then(|p| p.kind) else {
            return Err(Status::invalid_argument("the first part is not a request"));
        };
        let reply = echo(wire::receive(first, LIMIT, &mut parts).await?)?;
        let parts = wire::send(reply, |r| v1::InferReplyPart { kind: Some(Out::Reply(r)) });
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.into_iter().map(Ok)))))
    }

    async fn bind(&self, _: Request<v1::BindRequest>) -> Answer<v1::BindReply> {
        Err(Status::unimplemented("bind"))
    }

    async fn profile(&self, _: Request<v1::ProfileRequest>) -> Answer<v1::ProfileReply> {
        Err(Status::unimplemented("profile"))
    }

    async fn probe(&self, _: Request<v1::ProbeRequest>) -> Answer<v1::ProbeReply> {
        Err(Status::unimplemented("probe"))
    }

    type TrainStream = Replies<v1::TrainReply>;

    async fn train(&self, _: Request<Streaming<v1::TrainRequest>>) -> Answer<Self::TrainStream> {
        Err(Status::unimplemented("train"))
    }

    type GenerateStream = Replies<v1::GenerateReply>;

    async fn generate(
        &self,
        _: Request<Streaming<v1::GenerateRequest>>,
    ) -> Answer<Self::GenerateStream> {
        Err(Status::unimplemented("generate"))
    }

    type FetchWeightsStream = Replies<v1::WeightsPart>;

    async fn fetch_weights(
        &self,
        _: Request<v1::FetchWeightsRequest>,
    ) -> Answer<Self::FetchWeightsStream> {
        Err(Status::unimplemented("fetch_weights"))
    }

    async fn store_weights(
        &self,
        _: Request<Streaming<v1::WeightsPart>>,
    ) -> Answer<v1::StoreWeightsReply> {
        Err(Status::unimplemented("store_weights"))
    }
}
