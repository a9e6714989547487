//! The far end: a gRPC server that answers at once, and a socket that takes or gives bytes.

use std::{net::Ipv4Addr, pin::Pin};

use cleave_shared::{
    http2::{self, MAX_MESSAGE_BYTES},
    link::Profile,
    wire::v1::{self, split_service_server::SplitService},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_stream::{Stream, once};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

use super::{BLOCK, Outcome};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

pub async fn serve() -> Outcome<()> {
    let (grpc, bulk) = (listen().await?, listen().await?);
    println!("{} {}", grpc.local_addr()?.port(), bulk.local_addr()?.port());
    tokio::spawn(async move {
        while let Ok((connection, _)) = bulk.accept().await {
            tokio::spawn(take_or_give(connection));
        }
    });
    let service = v1::split_service_server::SplitServiceServer::new(Echo)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let incoming = TcpIncoming::from(grpc).with_nodelay(Some(true));
    let link = Profile::builtin("none").ok_or("no profile `none`")?;
    http2::server(&link.uplink).add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}

async fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// The first byte says which: `u` takes until the end, `d` gives until nobody takes.
async fn take_or_give(mut connection: TcpStream) {
    let mut block = vec![0; BLOCK];
    match connection.read_u8().await {
        Ok(b'u') => while matches!(connection.read(&mut block).await, Ok(1..)) {},
        Ok(b'd') => while connection.write_all(&block).await.is_ok() {},
        _ => {}
    }
}

struct Echo;

#[tonic::async_trait]
impl SplitService for Echo {
    async fn infer(&self, _: Request<v1::InferRequest>) -> Answer<v1::InferReply> {
        Ok(Response::new(v1::InferReply::default()))
    }

    type InferChunkedStream = Answers<v1::InferReplyPart>;

    /// One answer when all parts are there.
    async fn infer_chunked(
        &self,
        parts: Request<Streaming<v1::InferPart>>,
    ) -> Answer<Self::InferChunkedStream> {
        let mut parts = parts.into_inner();
        while parts.message().await?.is_some() {}
        Ok(Response::new(Box::pin(once(Ok(v1::InferReplyPart::default())))))
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

    type GenerateStream = Answers<v1::GenerateReply>;

    async fn generate(
        &self,
        _: Request<Streaming<v1::GenerateRequest>>,
    ) -> Answer<Self::GenerateStream> {
        Err(Status::unimplemented("generate"))
    }

    type TrainStream = Answers<v1::TrainReply>;

    async fn train(&self, _: Request<Streaming<v1::TrainRequest>>) -> Answer<Self::TrainStream> {
        Err(Status::unimplemented("train"))
    }

    type FetchWeightsStream = Answers<v1::WeightsPart>;

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
