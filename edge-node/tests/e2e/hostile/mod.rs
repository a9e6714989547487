//! Ten thousand requests that are almost right, to both nodes: each is answered with a status that fits, and whoever
//! asks well meanwhile gets the right answer.

mod loris;
mod mutate;
mod raw;

use bytes::Bytes;
use cleave_shared::{
    config::Config,
    tensor::HostTensor,
    wire::{self, v1},
};
use prost::Message;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tonic::{Code, transport::Channel};

use self::raw::Http;
use crate::nodes::{CONFIG, Nodes, digits, request};

const SEED: u64 = 8;
/// Of each kind: to the cloud, to the edge over gRPC, to the edge over REST.
const REQUESTS: usize = 3400;
/// A well-formed request comes after so many others.
const GOOD_EVERY: usize = 200;
/// What a node may grow by meanwhile, bytes: caches fill, arenas of the allocator are made.
const GROWTH: u64 = 150 << 20;

type Call = (&'static str, Vec<u8>);

fn agreement(config: &Config) -> v1::Agreement {
    config.agreement(2, "seed:7")
}

/// A right message for each method of the cloud.
fn cloud_calls(config: &Config) -> Vec<Call> {
    let agreed = Some(agreement(config));
    let tensor = HostTensor::from_f32(vec![1, 4, 4, 4], &[0.5; 64]);
    let tensors = || wire::encode(vec![("x".into(), tensor.clone())], &cleave_shared::codec::F32);
    let infer = v1::InferRequest { agreement: agreed.clone(), activation: tensors() };
    let training =
        r#"{"loss":"cross_entropy","optimizer":{"kind":"sgd","learning_rate":0.1,"momentum":0.0}}"#;
    let open = v1::TrainOpen {
        agreement: agreed.clone(),
        run: "a".into(),
        training: training.into(),
        ..Default::default()
    };
    let train = v1::TrainRequest { number: 1, kind: Some(v1::train_request::Kind::Open(open)) };
    let part = v1::InferPart { kind: Some(v1::infer_part::Kind::Request(infer.clone())) };
    let store = v1::WeightsPart {
        kind: Some(v1::weights_part::Kind::Weights(v1::StageWeights {
            weights: "run:a@5".into(),
            tensors: tensors(),
            stages: vec!["conv1".into()],
            adapters: String::new(),
        })),
    };
    let generate = v1::GenerateOpen { agreement: agreed.clone(), ..Default::default() };
    let generate = v1::GenerateRequest { kind: Some(v1::generate_request::Kind::Open(generate)) };
    let fetch = v1::FetchWeightsRequest { weights: "run:a@5".into(), stages: vec!["conv1".into()] };
    let profile = v1::ProfileRequest {
        agreement: agreed.clone(),
        batch: 1,
        length: 1,
        rounds: 1,
        training: false,
        codecs: vec!["int8".into()],
    };
    let probe = v1::ProbeRequest { payload: vec![0; 64].into(), reply_bytes: 64 };
    let join = v1::GroupJoin { agreement: agreed.clone(), ..Default::default() };
    let join = v1::GroupRequest { kind: Some(v1::group_request::Kind::Join(join)) };
    vec![
        ("/cleave.v1.SplitService/Bind", v1::BindRequest { agreement: agreed }.encode_to_vec()),
        ("/cleave.v1.SplitService/Infer", infer.encode_to_vec()),
        ("/cleave.v1.SplitService/InferChunked", part.encode_to_vec()),
        ("/cleave.v1.SplitService/Train", train.encode_to_vec()),
        ("/cleave.v1.SplitService/Generate", generate.encode_to_vec()),
        ("/cleave.v1.SplitService/FetchWeights", fetch.encode_to_vec()),
        ("/cleave.v1.SplitService/StoreWeights", store.encode_to_vec()),
        ("/cleave.v1.SplitService/Profile", profile.encode_to_vec()),
        ("/cleave.v1.SplitService/Probe", probe.encode_to_vec()),
        ("/cleave.v1.GroupService/Join", join.encode_to_vec()),
    ]
}

/// The same for the edge.
fn edge_calls(config: &Config) -> Vec<Call> {
    let infer = request(digits(config, 2)).encode_to_vec();
    // Two fields: name and version.
    let named = b"\x0a\x06digits\x12\x011".to_vec();
    vec![
        ("/inference.GRPCInferenceService/ModelInfer", infer.clone()),
        ("/inference.GRPCInferenceService/ModelStreamInfer", infer),
        ("/inference.GRPCInferenceService/ModelMetadata", named.clone()),
        ("/inference.GRPCInferenceService/ModelReady", named),
        ("/inference.GRPCInferenceService/ServerMetadata", Vec::new()),
    ]
}

/// What a peer may be told that sent nonsense. `INTERNAL` only for what is no protobuf: gRPC's own rule.
fn fits(status: &tonic::Status) -> bool {
    match status.code() {
        Code::Internal => status.message().contains("decode Protobuf"),
        code => !matches!(code, Code::Unknown | Code::Unavailable | Code::DataLoss),
    }
}

/// Sends a node calls that are almost right; gives how many it took all the same.
async fn assault(
    random: &mut ChaCha8Rng,
    channel: &Channel,
    good: &[Call],
    nodes: &Nodes,
) -> usize {
    let mut taken = 0;
    for _ in 0..REQUESTS {
        let (path, message) = good.choose(random).expect("there are some");
        let (_, other) = good.choose(random).expect("there are some");
        let messages: Vec<Bytes> = (0..random.random_range(1..=3))
            .map(|_| mutate::bytes(random, message, other).into())
            .collect();
        match raw::call(channel, path, messages.clone()).await {
            Ok(_) => taken += 1,
            Err(status) => {
                assert!(fits(&status), "{path}: {status:?}\n{messages:02x?}\n{}", nodes.logs());
            }
        }
    }
    taken
}

/// Resident memory of a process, bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has it");
    let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap();
    kilobytes << 10
}

/// Both nodes, their sizes, and the answer that a right request gets.
struct Besieged {
    nodes: Nodes,
    pids: [u32; 2],
    sizes: [u64; 2],
    input: HostTensor,
    answer: Vec<Bytes>,
}

impl Besieged {
    async fn new() -> Self {
        let nodes = Nodes::start(CONFIG).await;
        let pids = [&nodes.cloud, &nodes.edge].map(|p| p.as_ref().expect("started").0.id());
        let input = digits(&nodes.config(), 3);
        let answer = nodes.infer(input.clone()).await.expect("an answer").raw_output_contents;
        Self { sizes: pids.map(resident), nodes, pids, input, answer }
    }

    /// Alive, right, and not much larger than before.
    async fn stands(&self) {
        let answer = self.nodes.infer(self.input.clone()).await;
        let answer = answer.unwrap_or_else(|e| panic!("{e}\n{}", self.nodes.logs()));
        assert_eq!(answer.raw_output_contents, self.answer);
        for (pid, before) in self.pids.iter().zip(self.sizes) {
            let now = resident(*pid);
            assert!(now < before + GROWTH, "{before} bytes have become {now}");
        }
    }

    async fn channel(&self, port: u16) -> Channel {
        let address = format!("http://127.0.0.1:{port}");
        Channel::from_shared(address).unwrap().connect().await.expect("the node answers")
    }

    fn said_no_panic(&self) {
        let logs = self.nodes.logs();
        assert!(!logs.contains("panicked"), "{logs}");
    }
}

#[tokio::test]
async fn mutated_calls_are_answered_with_their_status() {
    let besieged = Besieged::new().await;
    let config = besieged.nodes.config();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    for (port, good) in [
        (besieged.nodes.cloud_port, cloud_calls(&config)),
        (besieged.nodes.grpc_port, edge_calls(&config)),
    ] {
        let channel = besieged.channel(port).await;
        let taken = assault(&mut random, &channel, &good, &besieged.nodes).await;
        println!("port {port}: {REQUESTS} calls, {taken} of them taken");
        assert!(taken < REQUESTS, "nothing was refused");
        besieged.stands().await;
    }
    besieged.said_no_panic();
}

/// A request, sound or not, as it stands on the wire.
fn http_request(random: &mut ChaCha8Rng, good: &Value) -> Vec<u8> {
    let method = *["POST", "POST", "POST", "GET", "PUT", "\u{1}"].choose(random).unwrap();
    let paths = [
        "/v2/models/digits/infer",
        "/v2/models/digits/versions/1/infer",
        "/v2/models/digits",
        "/v2/models/%ff/infer",
        "/v1/completions",
        "/v1/chat/completions",
        "/../../etc/passwd",
        "/metrics",
    ];
    let weights = [&paths[..1]; 6].concat();
    let path = *[&weights[..], &paths[..]].concat().choose(random).unwrap();
    let body = match random.random_range(0..3) {
        0 => mutate::json(random, good).to_string().into_bytes(),
        1 => {
            let text = good.to_string();
            mutate::bytes(random, text.as_bytes(), b"[[[[{{\"\\u0000\"")
        }
        _ => {
            let mut text = mutate::json(random, good).to_string().into_bytes();
            text.extend([0xc3; 512]);
            text
        }
    };
    let length = match random.random_range(0..12) {
        0 => "-1".into(),
        1 => (body.len() + 7).to_string(),
        2 => body.len().saturating_sub(9).to_string(),
        3 => "99999999999999999999".into(),
        _ => body.len().to_string(),
    };
    let header = match random.random_range(0..8) {
        0 => format!("Inference-Header-Content-Length: {}\r\n", random.random_range(0..2000)),
        1 => "Inference-Header-Content-Length: 99999999999999999999\r\n".into(),
        2 => "Content-Encoding: gzip\r\n".into(),
        3 => format!("X-Long: {}\r\n", "y".repeat(random.random_range(1..1 << 17))),
        4 => "Transfer-Encoding: chunked\r\n".into(),
        _ => String::new(),
    };
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\
         Content-Type: application/json\r\n{header}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(body);
    if random.random_range(0..10) == 0 {
        bytes = mutate::bytes(random, &bytes, b"\r\n\r\n\0");
    }
    bytes
}

/// What an HTTP answer to nonsense may be. Errors say what is wrong, but for those of the HTTP library itself.
fn http_fits(answer: &Http) -> bool {
    match answer {
        Http::Closed => true,
        Http::Answer { status: 200, .. } => true,
        Http::Answer { status: 400 | 431, body } if body.is_empty() => true,
        Http::Answer {
            status: 400 | 404 | 405 | 408 | 411 | 413 | 414 | 415 | 429 | 431,
            body,
        } => body.contains("\"error\""),
        Http::Answer { .. } => false,
    }
}

#[tokio::test]
async fn mutated_http_requests_are_answered_with_their_status() {
    let besieged = Besieged::new().await;
    let values = besieged.input.to_f32().unwrap()[..64].to_vec();
    let good = json!({ "id": "1", "inputs": [{
        "name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": values
    }], "outputs": [{ "name": "logits" }], "parameters": { "exits": true } });
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    for number in 0..REQUESTS {
        let bytes = http_request(&mut random, &good);
        let answer = raw::http(besieged.nodes.http_port, &bytes).await;
        assert!(
            http_fits(&answer),
            "{answer:?} to {}\n{}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]),
            besieged.nodes.logs()
        );
        let status = match answer {
            Http::Closed => 0,
            Http::Answer { status, .. } => status,
        };
        *counts.entry(status).or_default() += 1;
        if number % GOOD_EVERY == 0 {
            besieged.stands().await;
        }
    }
    println!("{REQUESTS} requests; answers by status, 0 is closed: {counts:?}");
    assert!(counts[&400] > REQUESTS / 10, "{counts:?}");
    // Some changes do no harm.
    assert!(counts.contains_key(&200), "{counts:?}");
    besieged.stands().await;
    besieged.said_no_panic();
}
