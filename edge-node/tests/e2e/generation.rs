//! Generation over both nodes: the same tokens at every split point, one position a token over the
//! link, and sessions that are bounded and freed.

use std::sync::Arc;

use cleave_shared::{
    codec::F32,
    compute::{ComputePool, Machine},
    generate::{Sampler, Sequence, Tail},
    link::Link,
    model::{SeededWeights, Segment},
    tensor::HostTensor,
    wire::{
        self,
        v1::{self, generate_request::Kind, split_service_client::SplitServiceClient},
    },
};
use edge_node::{
    deploy::Deployer,
    generate::SplitGenerator,
    serve::{Event, Events, Finish, Generation, Generator, InferError, Sampling},
    stack,
};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::{Code, Status, transport::Channel};

use crate::{
    link_proxy::http,
    nodes::{Nodes, eventually, free_ports},
};

/// One block of GPT-2's width: embed, block-0, head.
const CONFIG: &str = r#"
split_point = 1
[model]
family = "gpt2"
vocab_size = 97
n_positions = 200
n_embd = 768
n_layer = 1
n_head = 12
[link]
profile = "none"
[cloud]
max_sessions = 2
"#;
const HIDDEN: f64 = 768.0;
const STAGES: usize = 3;
const PROMPT: [i64; 5] = [3, 1, 4, 1, 5];
const SAMPLING: Sampling = Sampling { temperature: 0.9, top_k: 40, top_p: 0.98, seed: 11 };

fn request(max_tokens: usize) -> Generation {
    let (prompt, sampling) = (PROMPT.to_vec(), SAMPLING);
    Generation { prompt, max_tokens, sampling, stop: Vec::new() }
}

/// What the whole model draws, without nodes.
fn whole(nodes: &Nodes, tokens: usize) -> Vec<i64> {
    let config = nodes.config();
    let mut weights = SeededWeights(config.seed);
    let model = Segment::build(&config.model, 0..STAGES, &mut weights, false).unwrap();
    let Sampling { temperature, top_k, top_p, seed } = SAMPLING;
    let sampler = Sampler { temperature, top_k, top_p, seed };
    let mut tail = Tail::new(Sequence::new(Arc::new(model), 200), sampler);
    let (mut next, mut ids) = (PROMPT.to_vec(), Vec::new());
    while ids.len() < tokens {
        let input = HostTensor::from_i64(vec![1, next.len()], &next);
        let id = tail.next(&vec![("x".into(), input)]).unwrap().id as i64;
        next = vec![id];
        ids.push(id);
    }
    ids
}

/// `edge-node generate`, as a process.
fn run(nodes: &Nodes, split: usize, tokens: usize) -> Value {
    let (split, tokens) = (format!("split_point={split}"), tokens.to_string());
    let words = "generate --json --prompt-ids 3,1,4,1,5 --temperature 0.9 --top-k 40 --top-p 0.98 \
                 --sampling-seed 11 --max-tokens";
    let mut words: Vec<&str> = words.split_whitespace().collect();
    words.extend([&tokens, "--set", &split]);
    let output = nodes.edge_command(&words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}\n{}", nodes.logs());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn every_split_draws_the_same_tokens_and_each_ships_one_position() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let expected = whole(&nodes, 120);
    let lengths = [24, 72, 120];
    for split in 0..=STAGES {
        let crossing = (1..STAGES).contains(&split);
        let runs: Vec<Value> = lengths
            .iter()
            .take(if crossing { 3 } else { 1 })
            .map(|&tokens| run(&nodes, split, tokens))
            .collect();
        for (run, tokens) in runs.iter().zip(lengths) {
            let ids: Vec<i64> = serde_json::from_value(run["ids"].clone()).unwrap();
            assert_eq!(ids, expected[..tokens], "split {split}");
            assert_eq!(run["finish"], "length");
        }
        // What 48 tokens more cost, at the beginning and farther on: it is the same.
        for pair in runs.windows(2) {
            let more = |key: &str| pair[1][key].as_f64().unwrap() - pair[0][key].as_f64().unwrap();
            let (up, down) = (more("uplink_bytes") / 48.0, more("downlink_bytes") / 48.0);
            println!("split {split}: {up:.0} bytes up and {down:.0} down for each token");
            assert!(up <= 1.05 * HIDDEN * 4.0, "split {split}: {up} bytes up for each token");
            assert!(up >= HIDDEN * 4.0, "split {split}: {up} bytes are not a position");
            assert!(down <= 97.0, "split {split}: {down} bytes down for each token");
        }
    }
}

/// A generator as the edge node has it, and the link that it uses.
async fn generator(nodes: &Nodes) -> SplitGenerator {
    let config = nodes.config();
    let link = Link::new(config.link_profile(), 1);
    let client = stack::client(&config, &link).unwrap();
    let pool = ComputePool::new(1, 16, Machine::new(1));
    let deployer = Deployer::new(&config, client.clone()).unwrap();
    let target = deployer.target(&config).unwrap();
    let deployment = deployer.deploy(target).await.unwrap();
    let (_, current) = tokio::sync::watch::channel(Some(Arc::new(deployment)));
    SplitGenerator::new(&config, current, pool, client)
}

async fn started(generator: &SplitGenerator) -> Result<Events, InferError> {
    let mut events = generator.generate(request(150)).await?;
    assert!(matches!(events.next().await, Some(Ok(Event::Token { .. }))));
    Ok(events)
}

#[tokio::test]
async fn sessions_are_bounded_and_a_client_that_leaves_frees_its_own() {
    let [metrics] = free_ports();
    let mut nodes = Nodes::new(&format!("{CONFIG}metrics_listen = \"127.0.0.1:{metrics}\"\n"));
    nodes.start_cloud().await;
    let generator = generator(&nodes).await;
    let first = started(&generator).await.unwrap();
    let second = started(&generator).await.unwrap();
    assert_eq!(generator.in_use().0, 2);
    let Err(InferError::Busy(text)) = started(&generator).await else { panic!("a third") };
    assert!(text.contains("all 2 sessions are in use"), "{text}");
    // Two sequences of up to 154 positions of 200: room for 128 each so far, all of it promised.
    let (used, promised) = (2 * 2 * 128 * 768 * 4, 2 * 2 * 200 * 768 * 4);
    let text = http(metrics, "GET", "/metrics", "").await;
    for (name, value) in
        [("sessions", 2), ("cache_bytes", used), ("cache_reserved_bytes", promised)]
    {
        let line = format!("cleave_{name}{{node=\"cloud\"}} {value}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
    drop((first, second));
    let again = eventually("room in the cloud", async || started(&generator).await.ok()).await;
    drop(again.expect("the cloud's sessions are free again"));
    let left = eventually("no session", async || (generator.in_use().0 == 0).then_some(())).await;
    left.expect("the edge's sessions are free again");
}

#[tokio::test]
async fn memory_of_caches_is_bounded_on_both_nodes() {
    // One sequence of up to 128 positions: two tensors of 768 FP32 values for each.
    let cache = 2 * 128 * 768 * 4;
    for (split, node) in [(1, "cloud"), (2, "edge")] {
        let config = CONFIG.replace("split_point = 1", &format!("split_point = {split}"));
        let limits = |own: &str| if own == node { cache + 1000 } else { 1 << 30 };
        let (cloud, edge) = (limits("cloud"), limits("edge"));
        let mut nodes = Nodes::new(&format!(
            "{config}max_cache_bytes = {cloud}\n[edge]\nmax_cache_bytes = {edge}\n"
        ));
        nodes.start_cloud().await;
        let generator = generator(&nodes).await;
        let fits = generator.generate(request(100)).await.unwrap();
        let Err(InferError::Busy(text)) = generator.generate(request(1)).await else {
            panic!("more than fits")
        };
        assert!(
            text.contains(&format!("1000 of {}", cache + 1000)) && text.contains(node),
            "{text}"
        );
        drop(fits);
    }
}

#[tokio::test]
async fn a_cloud_that_dies_under_a_sequence_is_an_error_and_the_next_one_works() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let generator = generator(&nodes).await;
    let mut events = started(&generator).await.unwrap();
    nodes.cloud = None;
    let error = loop {
        match events.next().await.expect("an error before the end") {
            Ok(Event::Token { .. }) => {}
            Ok(Event::End(finish)) => panic!("{finish:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, InferError::Unavailable(_)), "{error:?}");
    assert!(events.next().await.is_none());
    assert_eq!(generator.in_use(), (0, 0));

    nodes.start_cloud().await;
    let mut events = generator.generate(request(3)).await.unwrap();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event.unwrap());
    }
    let expected = whole(&nodes, 3);
    let ids: Vec<i64> = all.iter().filter_map(token).collect();
    assert_eq!((ids, all.last()), (expected, Some(&Event::End(Finish::Length))));
}

fn token(event: &Event) -> Option<i64> {
    match event {
        Event::Token { id, .. } => Some(*id),
        Event::End(_) => None,
    }
}

#[tokio::test]
async fn stop_tokens_end_a_sequence_and_bad_requests_are_refused() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let generator = generator(&nodes).await;
    assert_eq!(generator.positions(), 200);
    let expected = whole(&nodes, 30);
    let stop = expected[20];
    let until = expected.iter().position(|&id| id == stop).unwrap();
    let asked = Generation { stop: vec![stop], ..request(100) };
    let events: Vec<_> = generator.generate(asked).await.unwrap().collect().await;
    let ids: Vec<i64> = events.iter().filter_map(|e| token(e.as_ref().unwrap())).collect();
    assert_eq!(ids, expected[..until]);
    assert_eq!(events.last(), Some(&Ok(Event::End(Finish::Stop))));
    // More tokens than there are positions: the last position is the end.
    let events: Vec<_> = generator.generate(request(1000)).await.unwrap().collect().await;
    assert_eq!(events.len(), 200 - PROMPT.len() + 1);

    let refused = [
        (Generation { prompt: vec![], ..request(5) }, "a prompt of 0 tokens"),
        (Generation { prompt: vec![97], ..request(5) }, "token id 97 is not in 0..97"),
        (Generation { prompt: vec![-1], ..request(5) }, "token id -1"),
        (request(0), "max_tokens is 0"),
        (
            Generation { sampling: Sampling { top_p: 0.0, ..SAMPLING }, ..request(5) },
            "top_p = 0 is out of range",
        ),
    ];
    for (request, text) in refused {
        let Err(InferError::BadInput(found)) = generator.generate(request).await else {
            panic!("{text}")
        };
        assert!(found.contains(text), "{found}");
    }
    let long = Generation { prompt: vec![1; 200], ..request(5) };
    let Err(InferError::TooLong(found)) = generator.generate(long).await else { panic!() };
    assert!(found.contains("allowed: 1 to 199"), "{found}");
}

fn open(nodes: &Nodes, session: &str, max_positions: u32) -> Kind {
    let config = nodes.config();
    let agreement = config.agreement(0, "seed:7");
    let sampling = v1::Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };
    Kind::Open(v1::GenerateOpen {
        agreement: Some(agreement),
        session: session.into(),
        max_positions,
        sampling: Some(sampling),
    })
}

fn step(shape: [usize; 2], ids: &[i64]) -> Kind {
    let tensor = HostTensor::from_i64(shape.to_vec(), ids);
    let activation = wire::encode(vec![("x".into(), tensor)], &F32);
    Kind::Step(v1::GenerateStep { activation })
}

/// Sends these and nothing more, but does not end the stream: how it ends, and after how many tokens.
async fn talk(client: &SplitServiceClient<Channel>, kinds: Vec<Kind>) -> (usize, Status) {
    let messages = kinds.into_iter().map(|kind| v1::GenerateRequest { kind: Some(kind) });
    let requests = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut replies = match client.clone().generate(requests).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return (0, status),
    };
    let mut tokens = 0;
    loop {
        match replies.message().await {
            Ok(Some(_)) => tokens += 1,
            Ok(None) => panic!("no error after {tokens} tokens"),
            Err(status) => return (tokens, status),
        }
    }
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_is_refused_and_an_idle_one_ends() {
    let mut nodes = Nodes::new(&format!("{CONFIG}session_idle_s = 3\n"));
    nodes.start_cloud().await;
    let address = format!("http://127.0.0.1:{}", nodes.cloud_port);
    let client = SplitServiceClient::connect(address).await.unwrap();
    let open = |most| open(&nodes, "a", most);
    let one = || step([1, 1], &[5]);
    let wrong = [
        (vec![one()], 0, Code::InvalidArgument, "is not `open`"),
        (vec![open(201)], 0, Code::InvalidArgument, "max_positions 201 is out of range"),
        (vec![open(0)], 0, Code::InvalidArgument, "allowed: 1 to 200"),
        (vec![open(9), open(9)], 0, Code::InvalidArgument, "open already"),
        (vec![open(2), one(), step([1, 2], &[1, 2])], 1, Code::InvalidArgument, "1 to 1 more"),
        (vec![open(9), step([2, 1], &[1, 2])], 0, Code::InvalidArgument, "one sequence"),
        (vec![open(9), step([1, 1], &[97])], 0, Code::InvalidArgument, "token ids below 97"),
        // Three seconds without a step.
        (vec![open(9), one()], 1, Code::DeadlineExceeded, "session \"a\" was idle for too long"),
    ];
    for (messages, tokens, code, text) in wrong {
        let (answered, status) = talk(&client, messages).await;
        assert_eq!((answered, status.code()), (tokens, code), "{text}: {status}");
        assert!(status.message().contains(text), "{text}: {status}");
    }
    // Each of them has freed the session, whose id is free again.
    let (answered, _) = talk(&client, vec![open(9), one()]).await;
    assert_eq!(answered, 1);
}
