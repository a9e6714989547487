//! The split protocol over a plain socket and over the link on profile `none`, in turns.

use std::time::Instant;

use bytes::Bytes;
use cleave_shared::{
    http2,
    link::{Link, LinkLayer, Profile, TcpConnector},
    wire::v1::{self, split_service_client::SplitServiceClient},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tonic::transport::Channel;
use tower::{Layer, ServiceExt};

use super::{BLOCK, Outcome};

/// Messages of a stream, and round trips, in one round.
const MESSAGES: usize = 256;
const TRIPS: u32 = 2_000;

type Client = SplitServiceClient<Channel>;

/// Prints a line for each round: MiB/s and µs, plain and linked.
pub async fn compare(port: u16, rounds: u32) -> Outcome<()> {
    let profile = Profile::builtin("none").ok_or("no profile `none`")?;
    let address = format!("http://127.0.0.1:{port}").parse()?;
    let endpoint = http2::endpoint(address, &profile.downlink);
    let link = Link::new(profile, 1);
    let plain = endpoint.connect_with_connector(TcpConnector.map_response(TokioIo::new)).await?;
    let linked = endpoint.connect_with_connector(LinkLayer::new(link).layer(TcpConnector)).await?;
    let mut clients = [plain, linked].map(SplitServiceClient::new);
    for client in &mut clients {
        trip_us(client).await?;
        upload_mib_s(client).await?;
    }
    for round in 0..rounds {
        let (mut trips, mut uploads) = ([0.0; 2], [0.0; 2]);
        // Who goes first takes turns too.
        for turn in [0, 1] {
            let who = (round as usize + turn) % 2;
            trips[who] = trip_us(&mut clients[who]).await?;
        }
        for turn in [0, 1] {
            let who = (round as usize + turn) % 2;
            uploads[who] = upload_mib_s(&mut clients[who]).await?;
        }
        println!(
            "{}",
            json!({
                "plain_us": trips[0], "linked_us": trips[1],
                "plain_mib_s": uploads[0], "linked_mib_s": uploads[1],
            })
        );
    }
    Ok(())
}

/// Mean time of a call with one byte of tensor, µs.
async fn trip_us(client: &mut Client) -> Outcome<f64> {
    let tensor = v1::Tensor { data: Bytes::from_static(b"x"), ..Default::default() };
    let request = v1::InferRequest { activation: vec![tensor], ..Default::default() };
    let begin = Instant::now();
    for _ in 0..TRIPS {
        client.infer(request.clone()).await?;
    }
    Ok(begin.elapsed().as_secs_f64() * 1e6 / f64::from(TRIPS))
}

/// A stream of large messages, until the answer is there.
async fn upload_mib_s(client: &mut Client) -> Outcome<f64> {
    let data = Bytes::from(vec![0; BLOCK]);
    let part = move |_| {
        let chunk = v1::TensorChunk { data: data.clone() };
        v1::InferPart { kind: Some(v1::infer_part::Kind::Chunk(chunk)) }
    };
    let begin = Instant::now();
    let parts = tokio_stream::iter((0..MESSAGES).map(part));
    let mut answers = client.infer_chunked(parts).await?.into_inner();
    while answers.message().await?.is_some() {}
    let mib = (MESSAGES * BLOCK) as f64 / f64::from(1 << 20);
    Ok(mib / begin.elapsed().as_secs_f64())
}
