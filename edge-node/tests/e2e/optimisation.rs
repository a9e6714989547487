//! Quantised, pruned and adapted models across processes.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use cleave_shared::model::{Segment, WeightFormat};
use cleave_shared::{checkpoint::RunStore, config::Config, model::SeededWeights};
use serde_json::Value;

use crate::nodes::{CONFIG, Nodes, digits};

fn run(mut command: Command) -> String {
    let output = command.output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap()
}

/// `[train.lora]` before the optimiser's section.
fn with_lora(sides: &str) -> String {
    let section = format!("[train.lora]\nrank = 2\nsides = \"{sides}\"\n[train.optimizer]");
    CONFIG.replace("[train.optimizer]", &section).replace("split_point = 2", "split_point = 5")
}

/// Files that a checkpoint's stages have, with the names of their tensors.
fn stored(nodes: &Nodes, node: &str, run: &str) -> BTreeSet<String> {
    let store = RunStore::new(nodes.runs().join(node));
    let step = *store.steps(run).last().expect("a checkpoint");
    let names = store.stages(run, step).unwrap();
    let tensors = names.iter().flat_map(|stage| store.read(run, step, stage).unwrap().weights);
    tensors.map(|(name, _)| name).collect()
}

#[tokio::test]
async fn both_nodes_serve_a_quantised_model_or_say_that_they_differ() {
    let quantised = format!("{CONFIG}[quantize]\nweights = \"int4\"\n");
    let mut nodes = Nodes::start(&quantised).await;
    let input = digits(&nodes.config(), 3);
    let reply = nodes.infer(input.clone()).await.unwrap();
    let spec = nodes.config().model;
    let all = 0..spec.stage_count();
    let mut weights = SeededWeights(nodes.config().seed);
    let whole = Segment::build_in(WeightFormat::Int4, &spec, all, &mut weights).unwrap();
    let expected = whole.infer(&vec![("x".into(), input)]).unwrap();
    assert_eq!(reply.raw_output_contents[0], *expected[0].1.data(), "bit for bit");

    nodes.edge = None;
    nodes.write_config(CONFIG);
    nodes.launch_edge();
    let refused = crate::nodes::eventually("the refusal", async || {
        let log = fs::read_to_string(nodes.path().join("edge.log")).unwrap();
        log.contains("quantize.weights: edge has none, cloud has int4").then_some(())
    });
    refused.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
}

#[tokio::test]
async fn adapters_are_trained_stored_alone_resumed_and_served() {
    let mut nodes = Nodes::new(&with_lora("both"));
    nodes.start_cloud().await;
    run(nodes.edge_command(&["train", "--run", "a"]));
    let names = |layer: &str| ["A", "B"].map(|f| format!("{layer}.lora_{f}.weight")).into();
    assert_eq!(stored(&nodes, "edge", "a"), names("fc1"));
    assert_eq!(stored(&nodes, "cloud", "a"), names("fc2"));

    // Restarted nodes go on from the adapters and the seed.
    nodes.cloud = None;
    nodes.write_config(&with_lora("both").replace("epochs = 3", "epochs = 4"));
    nodes.start_cloud().await;
    run(nodes.edge_command(&["train", "--run", "a", "--resume"]));
    let metrics = fs::read_to_string(nodes.runs().join("edge/a/metrics.jsonl")).unwrap();
    let losses: Vec<f64> = metrics
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["kind"] == "step")
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), 160);
    assert!(losses[159] < losses[0], "{losses:?}");

    // What is served is the whole, also where the split point takes adapters to the other node.
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 4);
    let first = nodes.infer(input.clone()).await.unwrap();
    for split in [2, 6] {
        let config = with_lora("both").replace("epochs = 3", "epochs = 4");
        let moved = format!("split_point = {split}");
        nodes.write_config(&config.replace("split_point = 5", &moved));
        let reply = crate::nodes::eventually("the split point", async || {
            let reply = nodes.infer(input.clone()).await.expect("requests go on");
            (crate::nodes::split_point(&reply) == split).then_some(reply)
        });
        let reply = reply.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
        assert_eq!(reply.raw_output_contents, first.raw_output_contents, "split at {split}");
    }
}

#[tokio::test]
async fn adapters_go_out_to_peft_and_come_back() {
    let mut nodes = Nodes::new(&with_lora("both"));
    nodes.start_cloud().await;
    run(nodes.edge_command(&["train", "--run", "a"]));
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 4);
    let expected = nodes.infer(input.clone()).await.unwrap();
    assert_eq!(expected.model_version, "a-120");
    let out = nodes.path().join("peft").display().to_string();
    let text = run(nodes.edge_command(&["adapter", "export", "--out", &out]));
    assert!(text.contains("adapters of 2 layers"), "{text}");
    run(nodes.edge_command(&["adapter", "import", "--from", &out, "--run", "b"]));
    let reply = crate::nodes::eventually("the imported adapters", async || {
        let reply = nodes.infer(input.clone()).await.expect("requests go on");
        (reply.model_version == "b-1").then_some(reply)
    });
    let reply = reply.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    assert_eq!(reply.raw_output_contents, expected.raw_output_contents);
}

#[tokio::test]
async fn a_side_without_adapters_sends_and_stores_nothing() {
    let mut nodes = Nodes::new(&with_lora("cloud"));
    nodes.start_cloud().await;
    run(nodes.edge_command(&["train", "--run", "a"]));
    assert!(stored(&nodes, "edge", "a").is_empty());
    assert_eq!(stored(&nodes, "cloud", "a").len(), 2);
    let metrics = fs::read_to_string(nodes.runs().join("edge/a/metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "validation");
    let mut steps = metrics.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let last = steps.rfind(|l| l["kind"] == "step").unwrap();
    let bytes = |key: &str| last[key].as_u64().unwrap();
    // The activation of fc1 is 32 × 16 floats, 2 KiB; its gradient would be as much.
    let (up, down) = (bytes("uplink_bytes"), bytes("downlink_bytes"));
    assert!(down < up / 4, "no gradient crosses: {up} up, {down} down");
}

#[tokio::test]
async fn reports_are_printed_and_saved() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    run(nodes.edge_command(&["train", "--run", "a"]));
    let models = |json: &str| -> Vec<Value> {
        let report: Value = serde_json::from_str(json).unwrap();
        assert_eq!(report["weights"], "run:a:120");
        report["models"].as_array().unwrap().clone()
    };
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();

    let json = run(nodes.edge_command(&["quantize", "--json"]));
    let rows = models(&json);
    assert_eq!(rows.len(), 3);
    let bytes: Vec<f64> = rows.iter().map(|row| number(row, "weight_bytes")).collect();
    assert!(bytes[1] < bytes[0] / 2.5 && bytes[2] < bytes[1], "{bytes:?}");
    assert!(rows.iter().all(|row| number(row, "p50_ms") > 0.0 && row["samples"] == 360));
    let saved = fs::read_to_string(nodes.runs().join("edge/a/quantize.json")).unwrap();
    assert_eq!(models(&saved), rows);

    let folder = nodes.runs().join("edge/a/pruned-magnitude-50");
    let words = ["prune", "--amount", "0.5", "--fine-tune", "2", "--json"];
    let rows = models(&run(nodes.edge_command(&words)));
    assert_eq!(rows.len(), 3);
    let zeros: Vec<f64> =
        rows.iter().map(|row| number(row, "zeros") / number(row, "parameters")).collect();
    assert!(zeros[0] < 0.01 && zeros[1] > 0.45 && zeros[2] > 0.45, "{zeros:?}");
    assert!(number(&rows[2], "correct") >= number(&rows[1], "correct"));
    loads(&folder);

    let words = ["prune", "--method", "filter", "--amount", "0.5", "--fine-tune", "2"];
    let text = run(nodes.edge_command(&words));
    assert!(text.contains("filter-50") && text.contains("fine-tuned"), "{text}");
    let config = loads(&nodes.runs().join("edge/a/pruned-filter-50"));
    assert!(config.model.canonical().contains("\"channels\":[2,4]"), "{:?}", config.model);

    let output = nodes.edge_command(&["prune", "--amount", "1.5"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--amount: 1.5 is out of range"), "{text}");
}

/// The configuration that pruning wrote: both nodes can start from it.
fn loads(folder: &Path) -> Config {
    let file = Some(folder.join("cleave.toml"));
    let args = cleave_shared::config::ConfigArgs { config: file, ..Default::default() };
    let config = args.load().expect("the configuration is a good one");
    let file = config.weights.file.clone().expect("it names its weights");
    let file = std::sync::Arc::new(cleave_shared::model::WeightFile::open(&file).unwrap());
    let all = 0..config.model.stage_count();
    Segment::build(&config.model, all, &mut file.source(&[]), false).expect("they fit");
    config
}
