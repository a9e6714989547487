//! A run whose activations are clipped and noised before they are sent, and an audit of it.

use std::{fs, process::Command};

use cleave_shared::privacy::accountant;
use serde_json::Value;

use crate::nodes::{CONFIG, Nodes};

fn private() -> String {
    let section = "[train.privacy]\nclip = 4.0\nnoise_multiplier = 0.5\n[train.optimizer]";
    CONFIG.replace("[train.optimizer]", section)
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().expect("the program runs");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Losses of the steps of a run that is trained now.
fn trained(nodes: &Nodes, run: &str, more: &[&str]) -> Vec<f64> {
    output(nodes.edge_command(&[&["train", "--run", run], more].concat())).unwrap();
    let metrics = fs::read_to_string(nodes.runs().join("edge").join(run).join("metrics.jsonl"));
    let lines = metrics.unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|l| l["kind"] == "step").map(|l| l["loss"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn noise_is_drawn_on_the_edge_and_accounted_for() {
    let mut nodes = Nodes::new(&private());
    nodes.start_cloud().await;
    let losses = trained(&nodes, "a", &[]);
    let folder = nodes.runs().join("edge/a");
    let spent: Value =
        serde_json::from_slice(&fs::read(folder.join("privacy.json")).unwrap()).unwrap();
    assert_eq!(spent["epochs"], 3);
    assert_eq!(spent["epsilon"].as_f64(), Some(accountant::epsilon(0.25, 1.0, 3, 1e-5)));

    // The key stays on the edge. The same key is the same run, in micro-batches too; another is not.
    let key = fs::read(folder.join("noise.key")).unwrap();
    assert!(nodes.runs().join("cloud/a").is_dir());
    assert!(!nodes.runs().join("cloud/a/noise.key").exists());
    for run in ["same", "cut"] {
        let folder = nodes.runs().join("edge").join(run);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("noise.key"), &key).unwrap();
    }
    assert_eq!(trained(&nodes, "same", &[]), losses, "bit for bit");
    let cut = trained(&nodes, "cut", &["--set", "train.micro_batches=4"]);
    assert!(cut.iter().zip(&losses).take(10).all(|(a, b)| (a - b).abs() < 1e-4), "{cut:?}");
    let other = trained(&nodes, "other", &[]);
    assert!(other.iter().zip(&losses).take(10).any(|(a, b)| (a - b).abs() > 1e-3), "{other:?}");

    let audit = |more: &[&str]| {
        let args = ["audit", "--run", "a", "--epochs", "1", "--samples", "64", "--json"];
        output(nodes.edge_command(&[&args, more].concat()))
    };
    let report: Value = serde_json::from_str(&audit(&[]).unwrap()).unwrap();
    assert_eq!(report["privacy"]["clip"], 4.0);
    assert_eq!(report["cuts"].as_array().unwrap().len(), 2, "the edge's stages: {report}");
    assert!(folder.join("audit.png").is_file() && folder.join("audit.json").is_file());
    let error = audit(&["--split-points", "5"]).unwrap_err();
    assert!(error.contains("--split-points: 5: the cloud has conv2 of run:a:"), "{error}");
}

#[tokio::test]
async fn a_penalty_lowers_the_distance_correlation() {
    // One split point where much depends on the input; the same seed, batches and weights.
    let nodes = {
        let mut nodes = Nodes::new(&CONFIG.replace("epochs = 3", "epochs = 2"));
        nodes.start_cloud().await;
        nodes
    };
    trained(&nodes, "plain", &[]);
    trained(&nodes, "nopeek", &["--set", "train.privacy.nopeek_alpha=2.0"]);
    let correlation = |run: &str| {
        use cleave_shared::{
            checkpoint::RunStore,
            model::{Activation, LoadedWeights, Segment},
            privacy::nopeek,
        };
        let config = nodes.config();
        let store = RunStore::new(nodes.runs().join("edge"));
        let step = *store.steps(run).last().unwrap();
        let stages = &config.model.stage_names()[..2];
        let read = |stage: &String| store.read(run, step, stage).unwrap().weights;
        let mut weights = LoadedWeights::new(stages.iter().flat_map(read).collect());
        let head = Segment::build(&config.model, 0..2, &mut weights, false).unwrap();
        let input = vec![("x".to_string(), crate::nodes::digits(&config, 64))];
        let device = burn::tensor::Device::flex();
        let [x, y] = [&input, &head.infer(&input).unwrap()]
            .map(|tensors| Activation::from_host(tensors, &device).unwrap());
        nopeek::penalty(&x, &y).into_scalar::<f32>()
    };
    let (plain, nopeek) = (correlation("plain"), correlation("nopeek"));
    assert!(nopeek < plain - 0.02, "{plain} without the penalty, {nopeek} with it");
}
