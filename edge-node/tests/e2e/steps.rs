//! The five steps with the real programs: prepare, train, validate, tune, serve.

use std::fs;

use cleave_shared::{
    checkpoint::RunStore,
    data::{Dataset, Part, Prepared, gather},
    tensor::HostTensor,
};
use serde_json::Value;

use crate::nodes::{CONFIG, Nodes, digits, eventually};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn trials(nodes: &Nodes, run: &str) -> Vec<Value> {
    let path = nodes.runs().join("edge").join(run).join("tune").join("trials.jsonl");
    fs::read_to_string(path).unwrap().lines().map(json).collect()
}

#[tokio::test]
async fn five_steps_take_the_digits_from_data_to_service() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let prepared = json(&nodes.done(&["prepare", "--run", "a", "--json"]).await);
    assert_eq!(prepared["collected"], 1797);
    assert_eq!(prepared["parts"]["test"]["samples"], 360);
    assert_eq!(prepared["normalisation"][0]["mean"].as_array().unwrap().len(), 1);

    nodes.done(&["train", "--run", "a", "--no-deploy"]).await;
    let text = nodes.refused(&["prepare", "--run", "a"]).await;
    assert!(text.contains("trained already"), "{text}");

    let report = json(&nodes.done(&["validate", "--run", "a", "--part", "test", "--json"]).await);
    let accuracy = report["accuracy"].as_f64().unwrap();
    assert!(accuracy > 0.5, "{report}");
    let counts = report["confusion"]["counts"].as_array().unwrap();
    let count = |row: usize, column: usize| counts[row][column].as_u64().unwrap();
    let right: u64 = (0..10).map(|i| count(i, i)).sum();
    let all: u64 =
        (0..10).flat_map(|i| (0..10).map(move |j| (i, j))).map(|(i, j)| count(i, j)).sum();
    assert_eq!(all, 360);
    assert_eq!(right as f64 / all as f64, accuracy);
    let kept = nodes.runs().join("edge").join("a").join("validate-test.json");
    assert_eq!(json(&fs::read_to_string(kept).unwrap()), report);
    let table = nodes.done(&["validate", "--run", "a"]).await;
    assert!(table.contains("precision") && table.contains("180 samples for validation"), "{table}");

    let search = ["tune", "--run", "a", "--parallel", "2", "--split", "0,2", "--stop", "halving"];
    let table = nodes.done(&[&search[..], &["--trials", "3"]].concat()).await;
    assert!(table.contains("* the best: edge-node serve --run a-trial-"), "{table}");
    let first = trials(&nodes, "a");
    assert_eq!(first.len(), 3);
    let text = nodes.refused(&[&search[..], &["--trials", "4"]].concat()).await;
    assert!(text.contains("go on with --resume"), "{text}");
    nodes.done(&[&search[..], &["--trials", "4", "--resume"]].concat()).await;
    let all = trials(&nodes, "a");
    assert_eq!(all.len(), 4);
    for trial in &first {
        let again = all.iter().find(|t| t["trial"] == trial["trial"]).unwrap();
        assert_eq!(again["seconds"], trial["seconds"], "a trial that had ended ran again");
    }
    let best: Vec<&Value> = all.iter().filter(|t| t["best"] == true).collect();
    assert_eq!(best.len(), 1);
    let reached = |t: &Value| t["validation"]["accuracy"].as_f64().unwrap();
    assert!(all.iter().all(|t| reached(t) <= reached(best[0])), "{all:?}");

    serves_what_was_measured(&mut nodes, best[0]["run"].as_str().unwrap()).await;
}

/// The edge does to raw digits what was done to those that the run learned from.
async fn serves_what_was_measured(nodes: &mut Nodes, run: &str) {
    let report = json(&nodes.done(&["validate", "--run", run, "--part", "test", "--json"]).await);
    nodes.launch_edge_with(&["serve", "--run", run]);
    nodes.healthy(nodes.grpc_port).await;
    let input = digits(&nodes.config(), 360);
    let labels = {
        let dataset = nodes.config().data.open().unwrap();
        let split = dataset.split(nodes.config().seed);
        gather(dataset.as_ref(), split.indices(Part::Test)).labels.to_i64().unwrap()
    };
    let reply = nodes.infer(input).await.unwrap();
    assert_eq!(reply.model_version, format!("{run}-{}", report["step"]));
    let bytes = reply.raw_output_contents[0].clone();
    let logits = HostTensor::new(cleave_shared::tensor::DType::F32, vec![360, 10], bytes).unwrap();
    let logits = logits.to_f32().unwrap();
    let right = logits
        .chunks(10)
        .zip(&labels)
        .filter(|(row, label)| cleave_shared::model::loss::argmax(row) as i64 == **label);
    // One sample may lie between two classes: the batches are of other sizes.
    let off = right.count() as f64 - 360.0 * report["accuracy"].as_f64().unwrap();
    assert!(off.abs() < 1.5, "{off} samples more are right when served: {report}");
}

/// A run whose search was killed goes on within the trials that were running.
#[tokio::test]
async fn a_search_that_was_killed_goes_on() {
    let config = CONFIG.replace("profile = \"none\"", "profile = \"5g-mmwave\"");
    let mut nodes = Nodes::new(&config);
    nodes.start_cloud().await;
    let words = ["tune", "--run", "a", "--trials", "2", "--parallel", "2", "--stop", "none"];
    let search = nodes.launch(&words, "train.log");
    let metrics = nodes.runs().join("edge").join("a-trial-001").join("metrics.jsonl");
    let begun = eventually("some steps of the first trial", async || {
        let lines = fs::read_to_string(&metrics).unwrap_or_default().lines().count();
        (lines > 20).then_some(())
    });
    begun.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    drop(search);
    nodes.done(&[&words[..], &["--resume"]].concat()).await;
    let trials = trials(&nodes, "a");
    assert_eq!(trials.len(), 2);
    assert!(trials.iter().all(|t| t["state"] == "done"), "{trials:?}");
    let lines = fs::read_to_string(metrics).unwrap();
    let steps = lines.lines().map(json).filter(|l| l["kind"] == "step").count();
    assert_eq!(steps as u64, trials[0]["validation"]["step"].as_u64().unwrap());
}

const REGRESSION: &str = r#"
model = "linear-regression"
split_point = 1
[link]
profile = "none"
[train]
epochs = 60
batch_size = 4096
loss = "mse"
[train.optimizer]
kind = "sgd"
learning_rate = 0.4
momentum = 0.0
[data]
kind = "csv"
path = "line.csv"
label = "y"
target = "value"
"#;

/// y = 3x + 1 and noise, with rows that are of no use; 97 rows are.
fn line() -> String {
    let mut text = "x,y\n".to_string();
    for i in 0..97u32 {
        let x = f64::from(i) / 8.0 - 2.0;
        let noise = f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5;
        text += &format!("{x},{}\n", 3.0 * x + 1.0 + noise);
    }
    text + ",1\nx,2\n3,\nnan,4\n1,inf\n"
}

#[tokio::test]
async fn a_regression_from_a_file_is_the_least_squares_line() {
    let mut nodes = Nodes::new(REGRESSION);
    nodes.start_cloud().await;
    fs::write(nodes.path().join("line.csv"), line()).unwrap();
    let text = nodes.refused(&["train", "--run", "raw"]).await;
    assert!(text.contains("5 rows cannot be used") && text.contains("prepare"), "{text}");
    let text = nodes.done(&["prepare", "--run", "a"]).await;
    assert!(text.contains("102 samples of line.csv"), "{text}");
    assert!(text.contains("1 left out: x is not a number (first: line 100)"), "{text}");
    let trained = nodes.done(&["train", "--run", "a"]).await;
    assert!(trained.contains("RMSE"), "{trained}");

    // Least squares in closed form over the same training part, in the file's own units.
    let folder = nodes.runs().join("edge").join("a").join("data");
    let (manifest, _) = Prepared::manifest(&folder).unwrap();
    let scale = &manifest.normalisation[0];
    let prepared = Prepared::open(&folder).unwrap();
    let batch = gather(&prepared, prepared.split(0).indices(Part::Train));
    let raw = |v: f32| f64::from(v) * f64::from(scale.deviation[0]) + f64::from(scale.mean[0]);
    let x: Vec<f64> = batch.inputs[0].1.to_f32().unwrap().into_iter().map(raw).collect();
    let y: Vec<f64> = batch.labels.to_f32().unwrap().into_iter().map(f64::from).collect();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(&x), mean(&y));
    let covariance: f64 = x.iter().zip(&y).map(|(x, y)| (x - mx) * (y - my)).sum();
    let slope = covariance / x.iter().map(|x| (x - mx).powi(2)).sum::<f64>();
    let intercept = my - slope * mx;
    assert!((slope - 3.0).abs() < 0.1, "the file is not what the test thinks: {slope}");

    // The weight is in the cloud: the cut is behind the scaling.
    let store = RunStore::new(nodes.runs().join("cloud"));
    let step = *store.steps("a").last().unwrap();
    let weights = store.read("a", step, "linear").unwrap().weights;
    let weight = |name: &str| {
        let found =
            weights.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{weights:?}"));
        f64::from(found.1.to_f32().unwrap()[0])
    };
    let fitted = weight("linear.weight") / f64::from(scale.deviation[0]);
    assert!((fitted - slope).abs() < 1e-4, "{fitted} is not {slope}");
    let offset = weight("linear.bias") - fitted * f64::from(scale.mean[0]);
    assert!((offset - intercept).abs() < 1e-4, "{offset} is not {intercept}");

    let report = json(&nodes.done(&["validate", "--run", "a", "--part", "test", "--json"]).await);
    assert!(report["rmse"].as_f64().unwrap() < 0.5 && report["r2"].as_f64().unwrap() > 0.99);

    nodes.launch_edge_with(&["serve", "--run", "a"]);
    nodes.healthy(nodes.grpc_port).await;
    let reply = nodes.infer(HostTensor::from_f32(vec![2, 1], &[0.0, 10.0])).await.unwrap();
    let bytes = reply.raw_output_contents[0].clone();
    let answers = HostTensor::new(cleave_shared::tensor::DType::F32, vec![2], bytes).unwrap();
    let answers = answers.to_f32().unwrap();
    assert!((f64::from(answers[0]) - intercept).abs() < 1e-3, "{answers:?}");
    assert!((f64::from(answers[1]) - intercept - 10.0 * slope).abs() < 1e-3, "{answers:?}");
}

const LANGUAGE: &str = r#"
split_point = 2
[model]
family = "rnn"
cell = "gru"
task = "language-model"
vocabulary = 256
embedding = 8
hidden = 24
layers = 1
longest = 16
[link]
profile = "none"
[train]
epochs = 6
batch_size = 8
[train.optimizer]
kind = "adam"
learning_rate = 0.02
beta1 = 0.9
beta2 = 0.999
epsilon = 1e-8
[data]
kind = "text"
path = "text.txt"
sequence = 16
"#;

#[tokio::test]
async fn a_language_model_is_measured_by_its_perplexity() {
    let mut nodes = Nodes::new(LANGUAGE);
    nodes.start_cloud().await;
    let text = "the cat sat on the mat and the dog sat on the log. ".repeat(60);
    fs::write(nodes.path().join("text.txt"), text).unwrap();
    nodes.done(&["train", "--run", "a"]).await;
    let path = nodes.runs().join("edge").join("a").join("metrics.jsonl");
    let lines = fs::read_to_string(path).unwrap();
    let last = lines.lines().map(json).rfind(|l| l["kind"] == "validation").unwrap();
    let trained = last["perplexity"].as_f64().unwrap();
    // 16 different characters: guessing by their frequency alone is above 10.
    assert!(trained < 6.0, "{last}");
    let report = json(&nodes.done(&["validate", "--run", "a", "--json"]).await);
    let measured = report["perplexity"].as_f64().unwrap();
    assert!((measured / trained - 1.0).abs() < 1e-4, "{measured} is not {trained}");
    assert_eq!(report["accuracy"], last["accuracy"]);
    assert!(report.get("confusion").is_none());
}

const TEXTS: &str = r#"
split_point = 1
[model]
family = "rnn"
cell = "gru"
task = "classify"
vocabulary = 257
embedding = 8
hidden = 16
layers = 1
classes = 2
longest = 16
[link]
profile = "none"
[train]
epochs = 8
batch_size = 16
[train.optimizer]
kind = "adam"
learning_rate = 0.02
beta1 = 0.9
beta2 = 0.999
epsilon = 1e-8
[data]
kind = "labelled-text"
path = "texts.jsonl"
sequence = 16
"#;

#[tokio::test]
async fn texts_of_any_length_are_told_apart() {
    let mut nodes = Nodes::new(TEXTS);
    nodes.start_cloud().await;
    let line = |i: usize| {
        let (word, label) = [("yes", "good"), ("no", "bad")][i % 2];
        format!("{{\"text\": \"{}{word}\", \"label\": \"{label}\"}}\n", "x".repeat(i % 7))
    };
    let texts: String = (0..200).map(line).collect();
    fs::write(nodes.path().join("texts.jsonl"), texts + "{\"text\": \"\", \"label\": \"bad\"}\n")
        .unwrap();
    let text = nodes.done(&["prepare", "--run", "a"]).await;
    assert!(text.contains("1 left out: the text is empty"), "{text}");
    nodes.done(&["train", "--run", "a"]).await;
    let report = json(&nodes.done(&["validate", "--run", "a", "--part", "test", "--json"]).await);
    assert!(report["accuracy"].as_f64().unwrap() > 0.9, "{report}");
    let names: Vec<&str> =
        report["classes"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bad", "good"]);
}

#[tokio::test]
async fn what_no_step_can_do_is_one_line() {
    let nodes = Nodes::new(CONFIG);
    let text = nodes.refused(&["validate"]).await;
    assert!(text.contains("there is no run in"), "{text}");
    let text = nodes.refused(&["validate", "--run", "b"]).await;
    assert!(text.contains("b was not trained"), "{text}");
    let text = nodes.refused(&["serve", "--run", "b"]).await;
    assert!(text.contains("b was not trained"), "{text}");
    let text = nodes.refused(&["tune", "--split", "9"]).await;
    assert!(text.contains("split point 9 is out of range"), "{text}");
    let text = nodes.refused(&["tune", "--codec", "f13"]).await;
    assert!(text.contains("\"f13\" is unknown; allowed: f32"), "{text}");
    let text = nodes.refused(&["prepare", "--run", "../x"]).await;
    assert!(text.contains("is not a run id"), "{text}");
}
