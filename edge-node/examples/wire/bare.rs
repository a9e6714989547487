//! tonic as it is: a unary call of a message that is one field of bytes. What tonic's build step
//! would generate for such a service, without the trait that lets others implement it.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use cleave_shared::wire::v1::TensorChunk;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::net::TcpListener;
use tonic::{
    GrpcMethod, Request, Response, Status,
    body::Body,
    client,
    server::{self, NamedService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::trips::{RoundTrip, compare, content};

const SERVICE: &str = "wire.Bare";
const METHOD: &str = "Echo";
const PATH: &str = "/wire.Bare/Echo";

/// A message with a field of bytes and no other.
type Codec = ProstCodec<TensorChunk, TensorChunk>;

/// With tonic's own settings but for the longest message.
pub async fn serve(listener: TcpListener) -> Result<(), String> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = Server::builder().add_service(Bare).serve_with_incoming(incoming).await;
    served.map_err(|e| format!("the server ended: {e}"))
}

#[derive(Clone)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = Codec::default();
            let mut grpc = server::Grpc::new(codec).max_decoding_message_size(usize::MAX);
            Ok(grpc.unary(service_fn(echo), request).await)
        })
    }
}

async fn echo(request: Request<TensorChunk>) -> Result<Response<TensorChunk>, Status> {
    Ok(Response::new(request.into_inner()))
}

/// The near end.
pub struct Client {
    grpc: client::Grpc<Channel>,
    sent: TensorChunk,
    received: TensorChunk,
}

impl Client {
    pub async fn connect(port: u16, bytes: usize) -> Result<Self, String> {
        let address = format!("http://127.0.0.1:{port}");
        let endpoint = Endpoint::from_shared(address).map_err(|e| format!("port {port}: {e}"))?;
        let channel = endpoint.connect().await.map_err(|e| format!("port {port}: {e}"))?;
        let grpc = client::Grpc::new(channel).max_decoding_message_size(usize::MAX);
        let sent = TensorChunk { data: content(bytes) };
        Ok(Self { grpc, sent, received: TensorChunk::default() })
    }
}

impl RoundTrip for Client {
    fn request_bytes(&self) -> usize {
        self.sent.encoded_len()
    }

    async fn trip(&mut self) -> Result<(), String> {
        self.grpc.ready().await.map_err(|e| format!("tonic is not ready: {e}"))?;
        let mut request = Request::new(self.sent.clone());
        request.extensions_mut().insert(GrpcMethod::new(SERVICE, METHOD));
        let path = PathAndQuery::from_static(PATH);
        let answer = self.grpc.unary(request, path, Codec::default()).await;
        let answer = answer.map_err(|status| format!("tonic's answer: {}", status.message()))?;
        self.received = answer.into_inner();
        Ok(())
    }

    fn check(&mut self, whole: bool) -> Result<(), String> {
        let received = std::mem::take(&mut self.received);
        compare(&received.data, &self.sent.data, whole)
    }
}
