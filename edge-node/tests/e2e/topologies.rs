//! Several edges that learn one model, over real nodes, against the same algorithms in PyTorch.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use cleave_shared::{
    checkpoint::RunStore,
    config::Config,
    data::{BatchPlan, Part, gather},
    model::{SeededWeights, Segment},
    session::TopologyKind,
    tensor::{DType, HostTensor},
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

use crate::nodes::{CONFIG, Nodes};

/// What an edge of three, each with 5 steps in each of 6 rounds, may differ by from PyTorch.
pub const TOLERANCE: f64 = 1e-3;
pub const ROUNDS: u64 = 6;
pub const LOCAL_STEPS: u64 = 5;

pub const ADAM: &str =
    "kind = \"adam\"\nlearning_rate = 0.005\nbeta1 = 0.9\nbeta2 = 0.999\nepsilon = 1e-8";
pub const SGD: &str = "kind = \"sgd\"\nlearning_rate = 0.1\nmomentum = 0.9";

pub fn group(kind: &str, optimizer: &str, extra: &str) -> String {
    let start = CONFIG.find("[train.optimizer]").unwrap();
    let base =
        CONFIG[..start].replace("epochs = 3", &format!("epochs = {ROUNDS}\nbatch_size = 16"));
    let steps = format!("local_steps = {LOCAL_STEPS}\n");
    let steps = if extra.contains("local_epochs") { "" } else { &steps };
    format!(
        "{base}[train.optimizer]\n{optimizer}\n[train.topology]\nkind = \"{kind}\"\nedges = 3\n\
         partition = \"dirichlet\"\n{steps}{extra}\n"
    )
}

/// Losses by round, edge and step.
pub type Losses = BTreeMap<(u64, u64, u64), f64>;

pub fn losses_of(path: &Path) -> Losses {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let steps = lines.filter(|v| v["kind"] == "group-step");
    let key = |v: &Value, key: &str| v[key].as_u64().unwrap();
    steps
        .map(|v| {
            ((key(&v, "round"), key(&v, "edge"), key(&v, "step")), v["loss"].as_f64().unwrap())
        })
        .collect()
}

pub fn losses(nodes: &Nodes, run: &str) -> Losses {
    losses_of(&nodes.runs().join("edge").join(run).join("metrics.jsonl"))
}

fn tensor_view<'a>(tensor: &'a HostTensor) -> TensorView<'a> {
    let dtype = if tensor.dtype() == DType::I64 { Dtype::I64 } else { Dtype::F32 };
    TensorView::new(dtype, tensor.shape().to_vec(), tensor.data()).unwrap()
}

/// What the reference needs to take the same steps.
fn write_case(config: &Config, folder: &Path) {
    let topology = &config.train.topology;
    let dataset = config.data.open().unwrap();
    let split = dataset.split(config.seed);
    let train = split.indices(Part::Train);
    let parts = match topology.kind {
        TopologyKind::UShaped => vec![train.to_vec()],
        _ => {
            let (edges, seed) = (topology.edges, config.seed);
            topology.partition().deal(dataset.as_ref(), train, edges, seed).unwrap()
        }
    };
    let batches = parts.iter().map(|part| {
        let plan = BatchPlan::new(part.clone(), config.train.batch_size, config.seed).unwrap();
        (1..=ROUNDS * LOCAL_STEPS).map(|step| plan.batch(step)).collect::<Vec<_>>()
    });
    let case = json!({
        "model": config.model, "split": config.split(), "last_split": topology.last_split,
        "loss": config.train.loss, "optimizer": config.train.optimizer, "topology": topology.kind,
        "rounds": ROUNDS, "local_steps": LOCAL_STEPS, "samples": parts.iter().map(Vec::len).collect::<Vec<_>>(),
        "batches": batches.collect::<Vec<_>>(),
    });
    fs::write(folder.join("case.json"), case.to_string()).unwrap();
    let everything: Vec<usize> = (0..dataset.len()).collect();
    let all = gather(dataset.as_ref(), &everything);
    let stages = 0..config.model.stage_count();
    let whole = Segment::build(&config.model, stages, &mut SeededWeights(config.seed), false);
    let weights = whole.unwrap().weights();
    let mut tensors: Vec<(String, &HostTensor)> =
        weights.iter().map(|(name, t)| (format!("weights/{name}"), t)).collect();
    tensors.push(("inputs".into(), &all.inputs[0].1));
    tensors.push(("labels".into(), &all.labels));
    let views = tensors.into_iter().map(|(name, t)| (name, tensor_view(t)));
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("case.safetensors"), bytes).unwrap();
}

pub fn reference(config: &Config, folder: &Path) -> (Losses, BTreeMap<String, f64>) {
    write_case(config, folder);
    let python = std::env::var("CLEAVE_TEST_PYTHON").expect("run scripts/test");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/topology_reference.py");
    let output = Command::new(python).arg(script).arg(folder).output().expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let steps: Vec<(u64, u64, u64, f64)> = serde_json::from_value(found["losses"].clone()).unwrap();
    let steps = steps.into_iter().map(|(round, edge, step, loss)| ((round, edge, step), loss));
    (steps.collect(), serde_json::from_value(found["final"].clone()).unwrap())
}

/// The largest relative difference of losses, and of the norms of the final weights.
fn compare(nodes: &Nodes, run: &str) -> (f64, f64) {
    let config = nodes.config();
    let folder = nodes.path().join(format!("case-{run}"));
    fs::create_dir(&folder).unwrap();
    let (expected, norms) = reference(&config, &folder);
    let found = losses(nodes, run);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let relative = |a: f64, b: f64| (a - b).abs() / b.abs().max(1e-9);
    let loss = expected.iter().map(|(key, b)| relative(found[key], *b)).fold(0.0, f64::max);
    let store = RunStore::new(nodes.runs().join("cloud"));
    let stages = config.model.stage_names();
    let weights = stages.iter().flat_map(|s| store.read(run, ROUNDS, s).unwrap().weights);
    let mut weight = 0.0f64;
    let mut seen = 0;
    for (name, tensor) in weights {
        let squares = tensor.to_f32().unwrap().into_iter().map(|v| f64::from(v).powi(2));
        weight = weight.max(relative(squares.sum::<f64>().sqrt(), norms[&name]));
        seen += 1;
    }
    assert_eq!(seen, norms.len());
    (loss, weight)
}

/// Runs a topology with both optimisers and compares it with PyTorch.
async fn matches_pytorch(kind: &str) {
    for (name, optimizer) in [("sgd", SGD), ("adam", ADAM)] {
        let mut nodes = Nodes::new(&group(kind, optimizer, ""));
        nodes.start_cloud().await;
        nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
        let (loss, weight) = compare(&nodes, "a");
        println!("{kind} with {name}: losses {loss:.1e}, norms of the final weights {weight:.1e}");
        assert!(loss < TOLERANCE && weight < TOLERANCE, "{kind} {name}: {loss:e} {weight:e}");
    }
}

#[tokio::test]
async fn sequential_is_pytorchs() {
    matches_pytorch("sequential").await;
}

#[tokio::test]
async fn splitfed_v1_is_pytorchs() {
    matches_pytorch("splitfed-v1").await;
}

#[tokio::test]
async fn splitfed_v2_is_pytorchs() {
    matches_pytorch("splitfed-v2").await;
}

#[tokio::test]
async fn parallel_is_pytorchs() {
    matches_pytorch("parallel").await;
}
