//! Clients that begin and do not go on: their connections are closed, or their calls ended, and others are served
//! meanwhile.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cleave_shared::{
    codec::F32,
    config::Config,
    tensor::HostTensor,
    wire::{self, v1},
};
use http::Version;
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_stream::{StreamExt, wrappers::IntervalStream};
use tonic::{Code, Status, body::Body, transport::Channel};
use tower::ServiceExt;

use super::{Besieged, agreement};

/// Connections of each kind to each port.
const CONNECTIONS: usize = 40;
/// Longer than a node waits for first words, and than for a request's head.
const PATIENCE: Duration = Duration::from_secs(50);
/// Longer than the cloud waits for a message.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(75);
/// How much of a message never comes, bytes.
const MISSING: usize = 1000;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NEARLY_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r";
const HEAD: &[u8] = b"GET /v2/health/live HTTP/1.1\r\nX: ";

/// Connects, sends the words, one byte a second more, and waits to be left.
async fn linger(port: u16, words: &'static [u8], trickle: u8) -> (Duration, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the node listens");
    stream.write_all(words).await.expect("a new connection takes some bytes");
    let (begin, mut answer) = (Instant::now(), Vec::new());
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return (begin.elapsed(), answer),
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
            },
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if trickle != 0 && stream.write_all(&[trickle]).await.is_err() {
                    return (begin.elapsed(), answer);
                }
            }
        }
        assert!(begin.elapsed() < PATIENCE, "port {port} still listens to {words:?}");
    }
}

/// A call that begins and does not end: its path, what it sends, and whether a byte a second follows.
type Unfinished = (&'static str, Bytes, bool);

/// A message as gRPC frames it, of which so much never comes.
fn framed(message: &impl Message, missing: usize) -> Bytes {
    let message = message.encode_to_vec();
    let length = (message.len() + missing) as u32;
    // Not compressed.
    let mut framed = vec![0];
    framed.extend(length.to_be_bytes());
    framed.extend(message);
    framed.into()
}

fn unfinished(config: &Config) -> Vec<Unfinished> {
    let tensor = HostTensor::from_f32(vec![1, 4, 4, 4], &[0.5; 64]);
    let activation = wire::encode(vec![("x".into(), tensor)], &F32);
    let whole = v1::InferRequest { agreement: Some(agreement(config)), activation };
    let mut half = whole.clone();
    half.activation[0].data_bytes += MISSING as u64;
    let half = v1::InferPart { kind: Some(v1::infer_part::Kind::Request(half)) };
    let (infer, chunked, store) = (
        "/cleave.v1.SplitService/Infer",
        "/cleave.v1.SplitService/InferChunked",
        "/cleave.v1.SplitService/StoreWeights",
    );
    vec![
        // A byte now and then, in the middle of a message.
        (infer, framed(&whole, MISSING), true),
        (chunked, framed(&half, MISSING), true),
        (store, framed(&v1::WeightsPart::default(), MISSING), true),
        // A whole message: the call's end, or a chunk, would have to follow.
        (infer, framed(&whole, 0), false),
        (chunked, framed(&half, 0), false),
    ]
}

/// How the cloud ends this call.
async fn dawdle(channel: Channel, (path, first, trickles): Unfinished) -> Status {
    let bytes = tokio_stream::once(Ok::<_, Infallible>(first));
    let more = IntervalStream::new(interval(Duration::from_secs(1)));
    let more = more.filter(move |_| trickles).map(|_| Ok(Bytes::from_static(&[0])));
    let request = http::Request::post(path)
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(axum::body::Body::from_stream(bytes.chain(more))))
        .expect("a request");
    let answer = timeout(MESSAGE_PATIENCE, channel.oneshot(request)).await;
    let answer = answer.unwrap_or_else(|_| panic!("{path} goes on")).expect("an answer");
    Status::from_header_map(answer.headers()).unwrap_or_else(|| panic!("{path}: {answer:?}"))
}

#[tokio::test]
async fn who_does_not_go_on_is_left() {
    let besieged = Besieged::new().await;
    let nodes = &besieged.nodes;
    let mut calls = JoinSet::new();
    let channel = besieged.channel(nodes.cloud_port).await;
    for call in unfinished(&nodes.config()) {
        let channel = channel.clone();
        calls.spawn(async move { (call.0, dawdle(channel, call).await) });
    }
    let mut all = JoinSet::new();
    for port in [nodes.cloud_port, nodes.grpc_port, nodes.http_port] {
        // Says nothing; says nonsense, slowly; stops in the middle; goes on, slowly, or stops behind it.
        let kinds: [(&'static [u8], u8); 4] = match port == nodes.http_port {
            true => [(b"", 0), (b"G", b'G'), (HEAD, 0), (HEAD, b'y')],
            false => [(b"", 0), (b"G", b'G'), (NEARLY_PREFACE, 0), (PREFACE, 0)],
        };
        for (words, trickle) in kinds {
            for _ in 0..CONNECTIONS {
                all.spawn(async move { (port, linger(port, words, trickle).await) });
            }
        }
    }
    for _ in 0..20 {
        besieged.stands().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while let Some(left) = all.join_next().await {
        left.expect("it is left");
    }
    while let Some(ended) = calls.join_next().await {
        let (path, status) = ended.expect("it is ended");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{path}: {status}");
        assert!(status.message().contains("took more than"), "{path}: {status}");
    }
    besieged.stands().await;
    besieged.said_no_panic();
}
