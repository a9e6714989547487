//! Nodes that are asked to end, as `docker stop` and Kubernetes do: what they have in hand is finished or kept.

use std::{collections::BTreeMap, fs, path::Path};

use cleave_shared::{checkpoint::RunStore, tensor::HostTensor};
use edge_node::proto::inference::ModelInferResponse;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Response, Status};

use crate::{
    link_proxy::http,
    nodes::{CONFIG, Nodes, PATIENCE, Process, digits, eventually, request},
    training::{curve, metrics, reaches},
};

const STEPS: u64 = 120;
/// Jobs of the edge's compute threads: heads.
const HEADS: &str = "cleave_compute_seconds_count";
const UPLINK: &str = "cleave_link_delivered_bytes_total{direction=\"uplink\",edge=\"self\"}";

/// Slow enough to be disturbed, with no checkpoint before the end, and with a tail whose state is more than weights:
/// what its codec left out of gradients.
fn config() -> String {
    let config = CONFIG.replace("profile = \"none\"", "profile = \"5g-mmwave\"");
    let config =
        config.replace("checkpoint_every = 10", "checkpoint_every = 1000\nmicro_batches = 2");
    format!("{config}[codec]\nactivation = \"int8\"\ngradient = \"topk:0.25+zstd\"\n")
}

/// What a run came to: its losses, and the files of both halves' weights.
struct Learned {
    curve: Vec<(String, u64, f64, f64)>,
    weights: BTreeMap<String, Vec<u8>>,
}

impl Learned {
    fn of(nodes: &Nodes) -> Self {
        let folder = |node| nodes.runs().join(node).join(format!("a/step-{STEPS:08}"));
        let mut weights = files("edge", &folder("edge"));
        weights.extend(files("cloud", &folder("cloud")));
        // Of six stages, and of what the cloud's codec left out.
        assert_eq!(weights.len(), 7, "{:?}", weights.keys());
        Self { curve: curve(nodes, "a"), weights }
    }

    /// By a run that nobody disturbs.
    async fn undisturbed() -> Self {
        let mut nodes = Nodes::new(&config());
        nodes.start_cloud().await;
        nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
        Self::of(&nodes)
    }

    fn is_what_was_learned_by(&self, nodes: &Nodes) {
        let found = Self::of(nodes);
        assert_eq!(found.curve, self.curve, "{}", nodes.logs());
        for (name, bytes) in &self.weights {
            assert!(found.weights.get(name) == Some(bytes), "{name} differs");
        }
    }
}

fn files(node: &str, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let named = |entry: fs::DirEntry| {
        let name = format!("{node}/{}", entry.file_name().display());
        name.ends_with(".safetensors").then(|| (name, fs::read(entry.path()).unwrap()))
    };
    entries.flatten().filter_map(named).collect()
}

/// Steps of which a node has a checkpoint.
fn held(nodes: &Nodes, node: &str) -> Vec<u64> {
    RunStore::new(nodes.runs().join(node)).steps("a").into_iter().collect()
}

fn last_step(nodes: &Nodes) -> u64 {
    let lines = metrics(nodes, "a");
    lines.last().and_then(|line| line["step"].as_u64()).expect("it has taken a step")
}

/// First steps of the edge's later processes, whose counts of bytes begin anew.
fn begun_again(nodes: &Nodes) -> Vec<u64> {
    let lines = metrics(nodes, "a");
    let number = |line: &serde_json::Value, key: &str| line[key].as_u64().unwrap();
    let steps = lines.iter().filter(|line| line["kind"] == "step");
    let steps: Vec<[u64; 2]> =
        steps.map(|line| ["step", "uplink_bytes"].map(|key| number(line, key))).collect();
    steps.windows(2).filter(|pair| pair[1][1] < pair[0][1]).map(|pair| pair[1][0]).collect()
}

fn training_log(nodes: &Nodes) -> String {
    fs::read_to_string(nodes.path().join("train.log")).unwrap()
}

fn cloud(nodes: &mut Nodes) -> &mut Process {
    nodes.cloud.as_mut().expect("it was started")
}

#[tokio::test]
async fn an_edge_that_was_asked_to_end_goes_on_where_it_was() {
    let expected = Learned::undisturbed().await;
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    let mut training = nodes.launch_training(&["--run", "a"]);
    reaches(&nodes, "a", 25).await;
    assert_eq!(training.terminate().code(), Some(1), "{}", nodes.logs());
    let (step, log) = (last_step(&nodes), training_log(&nodes));
    let said = format!(
        "edge-node: interrupted at step {step}, which is kept; go on with train --resume --run a\n"
    );
    assert!(log.ends_with(&said), "{log}");
    assert_eq!((held(&nodes, "edge"), held(&nodes, "cloud")), (vec![step], vec![step]));
    let deployed = nodes.runs().join("edge").join("deployed.json");
    assert!(!deployed.exists(), "what was interrupted is not served");

    nodes.finishes(nodes.launch_training(&["--resume"])).await;
    assert_eq!(begun_again(&nodes), [step + 1]);
    assert!(deployed.exists());
    expected.is_what_was_learned_by(&nodes);
}

#[tokio::test]
async fn a_cloud_that_was_asked_to_end_has_kept_the_edges_step() {
    let expected = Learned::undisturbed().await;
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    let training = nodes.launch_training(&["--run", "a"]);
    reaches(&nodes, "a", 25).await;
    assert!(cloud(&mut nodes).terminate().success(), "{}", nodes.logs());
    let kept = held(&nodes, "cloud");
    assert!(kept.len() == 1 && kept[0] >= 25, "{kept:?}: {}", nodes.logs());
    nodes.start_cloud().await;
    nodes.finishes(training).await;
    let log = training_log(&nodes);
    assert!(log.contains("trying again") && !log.contains("going back to step"), "{log}");
    expected.is_what_was_learned_by(&nodes);
}

#[tokio::test]
async fn nodes_that_were_asked_together_have_kept_the_same_step() {
    let expected = Learned::undisturbed().await;
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    let mut training = nodes.launch_training(&["--run", "a"]);
    reaches(&nodes, "a", 25).await;
    training.signal("-TERM");
    assert!(cloud(&mut nodes).terminate().success(), "{}", nodes.logs());
    assert_eq!(training.0.wait().unwrap().code(), Some(1), "{}", nodes.logs());
    let step = last_step(&nodes);
    assert!(training_log(&nodes).contains(&format!("interrupted at step {step}, ")));
    assert_eq!((held(&nodes, "edge"), held(&nodes, "cloud")), (vec![step], vec![step]));

    nodes.start_cloud().await;
    nodes.finishes(nodes.launch_training(&["--resume"])).await;
    assert_eq!(begun_again(&nodes), [step + 1]);
    expected.is_what_was_learned_by(&nodes);
}

#[tokio::test]
async fn an_edge_that_is_asked_twice_does_not_wait_for_a_cloud_that_hangs() {
    // So that it does not give up by itself.
    let config = config().replace("step_timeout_s = 5", "step_timeout_s = 600");
    let mut nodes = Nodes::new(&config);
    nodes.start_cloud().await;
    let mut training = nodes.launch_training(&["--run", "a"]);
    reaches(&nodes, "a", 5).await;
    cloud(&mut nodes).signal("-STOP");
    training.signal("-TERM");
    let heard = async || training_log(&nodes).contains("asked to end").then_some(());
    eventually("the edge's word", heard).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    // As a shell says it of SIGTERM; an end of its own would be 1.
    assert_eq!(training.terminate().code(), Some(128 + 15), "{}", nodes.logs());
}

/// Nodes with 25 ms each way between them, where no request is sent twice and none is late.
async fn far_apart() -> Nodes {
    let mut nodes = Nodes::new(&CONFIG.replace("profile = \"none\"", "profile = \"lte\""));
    nodes.edge_sets = vec!["edge.retries=0".into(), "edge.deadline_ms=60000".into()];
    nodes.start_cloud().await;
    nodes.start_edge().await;
    nodes
}

/// A metric of the edge; 0 before it is there.
async fn metric(nodes: &Nodes, name: &str) -> f64 {
    let text = http(nodes.http_port, "GET", "/metrics", "").await;
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0.0)
}

async fn grows(nodes: &Nodes, name: &str, to: f64) {
    let there = async || (metric(nodes, name).await >= to).then_some(());
    eventually(name, there).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
}

type Asked = JoinHandle<Result<ModelInferResponse, Status>>;

async fn ask_sixteen_times(nodes: &Nodes, input: &HostTensor) -> Vec<Asked> {
    let client = nodes.client().await;
    let ask = |_| {
        let (mut client, request) = (client.clone(), request(input.clone()));
        tokio::spawn(async move { client.model_infer(request).await.map(Response::into_inner) })
    };
    (0..16).map(ask).collect()
}

async fn all_are_answered(nodes: &Nodes, asked: Vec<Asked>, expected: &ModelInferResponse) {
    for one in asked {
        let answer = timeout(PATIENCE, one).await.expect("no request hangs").unwrap();
        let answer = answer.unwrap_or_else(|status| panic!("{status}\n{}", nodes.logs()));
        assert_eq!(answer.raw_output_contents, expected.raw_output_contents);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_asked_to_end_answers_what_it_has_in_hand() {
    let mut nodes = far_apart().await;
    let input = digits(&nodes.config(), 8);
    let expected = nodes.infer(input.clone()).await.unwrap();
    let heads = metric(&nodes, HEADS).await;
    // Nothing is answered before the edge has been asked.
    cloud(&mut nodes).signal("-STOP");
    let asked = ask_sixteen_times(&nodes, &input).await;
    grows(&nodes, HEADS, heads + 16.0).await;
    nodes.edge.as_ref().unwrap().signal("-TERM");
    nodes.edge_says("asked to end").await;
    cloud(&mut nodes).signal("-CONT");
    all_are_answered(&nodes, asked, &expected).await;
    assert!(nodes.edge.as_mut().unwrap().terminate().success(), "{}", nodes.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_that_is_asked_to_end_answers_what_has_reached_it() {
    let mut nodes = far_apart().await;
    let input = digits(&nodes.config(), 32);
    let expected = nodes.infer(input.clone()).await.unwrap();
    let before = metric(&nodes, UPLINK).await;
    nodes.infer(input.clone()).await.unwrap();
    let after = metric(&nodes, UPLINK).await;
    // What it finds when it goes on is sixteen requests, and that it was asked to end.
    cloud(&mut nodes).signal("-STOP");
    let asked = ask_sixteen_times(&nodes, &input).await;
    // They differ by a few bytes of their headers.
    grows(&nodes, UPLINK, after + 15.5 * (after - before)).await;
    cloud(&mut nodes).signal("-TERM");
    cloud(&mut nodes).signal("-CONT");
    all_are_answered(&nodes, asked, &expected).await;
    assert!(cloud(&mut nodes).terminate().success(), "{}", nodes.logs());
}
