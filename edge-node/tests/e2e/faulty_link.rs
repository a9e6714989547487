//! A cloud seen through faults: it hands every call on to the real one, and loses, doubles and delays
//! frames of training streams, or cuts them, where a seeded draw says so.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use cleave_shared::wire::v1::{
    self,
    split_service_client::SplitServiceClient,
    split_service_server::{SplitService, SplitServiceServer},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

/// What happens to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameFault {
    Lost,
    Doubled,
    /// It comes a second time, after some later frames.
    Delayed,
    /// The stream ends here. The cloud takes that as deliberate, and forgets what it has in memory: the
    /// harder case of a broken connection. That of a process that is gone is the other.
    Cut,
}

/// Draws faults, and counts them.
pub struct Faults {
    state: Mutex<State>,
}

struct State {
    rng: ChaCha8Rng,
    /// Frames until the next fault.
    pause: u32,
    /// Mean number of frames between faults.
    mean: u32,
    left: u32,
    counts: BTreeMap<FrameFault, u32>,
}

impl Faults {
    /// `left` faults, one every `mean` frames or so.
    pub fn new(seed: u64, mean: u32, left: u32) -> Arc<Self> {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let state = State { rng, pause: mean, mean, left, counts: BTreeMap::new() };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub fn counts(&self) -> BTreeMap<FrameFault, u32> {
        self.state.lock().unwrap().counts.clone()
    }

    fn draw(&self) -> Option<FrameFault> {
        use FrameFault::*;
        let mut state = self.state.lock().unwrap();
        if state.left == 0 {
            return None;
        }
        state.pause = state.pause.saturating_sub(1);
        if state.pause > 0 {
            return None;
        }
        let mean = state.mean;
        state.pause = state.rng.random_range(1..=2 * mean);
        state.left -= 1;
        let fault = [Lost, Doubled, Doubled, Delayed, Delayed, Cut][state.rng.random_range(0..6)];
        *state.counts.entry(fault).or_default() += 1;
        Some(fault)
    }
}

/// Hands frames on, as the faults let it; the channel's end is the stream's end.
async fn carry<T: Clone + Send + 'static>(
    mut from: Streaming<T>,
    to: mpsc::Sender<Result<T, Status>>,
    faults: Arc<Faults>,
) {
    const LATER: usize = 3;
    let mut late: Option<(T, usize)> = None;
    while let Some(frame) = from.next().await {
        let Ok(frame) = frame else {
            let _ = to.send(Err(Status::unavailable("the stream broke"))).await;
            return;
        };
        let fault = faults.draw();
        let copies = match fault {
            Some(FrameFault::Lost) => 0,
            Some(FrameFault::Doubled) => 2,
            Some(FrameFault::Cut) => {
                let _ = to.send(Err(Status::unavailable("the stream was cut"))).await;
                return;
            }
            _ => 1,
        };
        for _ in 0..copies {
            if to.send(Ok(frame.clone())).await.is_err() {
                return;
            }
        }
        late = match (late, fault) {
            (None, Some(FrameFault::Delayed)) => Some((frame, LATER)),
            (Some((frame, 0)), _) => {
                if to.send(Ok(frame)).await.is_err() {
                    return;
                }
                None
            }
            (Some((frame, left)), _) => Some((frame, left - 1)),
            (None, _) => None,
        };
    }
}

/// The service between edge and cloud.
pub struct FaultyLink {
    cloud: SplitServiceClient<Channel>,
    faults: Arc<Faults>,
}

impl FaultyLink {
    /// Serves on a port of its own, which it gives, in front of the cloud at `cloud_port`.
    pub async fn start(cloud_port: u16, faults: Arc<Faults>) -> u16 {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{cloud_port}")).unwrap();
        let cloud = SplitServiceClient::new(endpoint.connect_lazy());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = SplitServiceServer::new(Self { cloud, faults });
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        port
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What training does not use.
fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("only training goes through faults"))
}

#[tonic::async_trait]
impl SplitService for FaultyLink {
    type TrainStream = Replies<v1::TrainReply>;

    async fn train(
        &self,
        request: Request<Streaming<v1::TrainRequest>>,
    ) -> Result<Response<Self::TrainStream>, Status> {
        let (up, requests) = mpsc::channel(64);
        tokio::spawn(carry(request.into_inner(), up, self.faults.clone()));
        let requests = ReceiverStream::new(requests).map_while(Result::ok);
        let replies = self.cloud.clone().train(requests).await?.into_inner();
        let (down, outgoing) = mpsc::channel(64);
        tokio::spawn(carry(replies, down, self.faults.clone()));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn bind(
        &self,
        request: Request<v1::BindRequest>,
    ) -> Result<Response<v1::BindReply>, Status> {
        self.cloud.clone().bind(request.into_inner()).await
    }

    async fn infer(
        &self,
        _: Request<v1::InferRequest>,
    ) -> Result<Response<v1::InferReply>, Status> {
        not_here()
    }

    async fn profile(
        &self,
        _: Request<v1::ProfileRequest>,
    ) -> Result<Response<v1::ProfileReply>, Status> {
        not_here()
    }

    async fn probe(
        &self,
        _: Request<v1::ProbeRequest>,
    ) -> Result<Response<v1::ProbeReply>, Status> {
        not_here()
    }

    type InferChunkedStream = Replies<v1::InferReplyPart>;

    async fn infer_chunked(
        &self,
        _: Request<Streaming<v1::InferPart>>,
    ) -> Result<Response<Self::InferChunkedStream>, Status> {
        not_here()
    }

    type GenerateStream = Replies<v1::GenerateReply>;

    async fn generate(
        &self,
        _: Request<Streaming<v1::GenerateRequest>>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        not_here()
    }

    type FetchWeightsStream = Replies<v1::WeightsPart>;

    async fn fetch_weights(
        &self,
        _: Request<v1::FetchWeightsRequest>,
    ) -> Result<Response<Self::FetchWeightsStream>, Status> {
        not_here()
    }

    async fn store_weights(
        &self,
        _: Request<Streaming<v1::WeightsPart>>,
    ) -> Result<Response<v1::StoreWeightsReply>, Status> {
        not_here()
    }
}
