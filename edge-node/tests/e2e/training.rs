//! Training across processes: whatever breaks, the losses are those of an undisturbed run.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use safetensors::SafeTensors;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::nodes::{CONFIG, Nodes, digits, eventually};

/// 12 ms round trip, so that a run takes long enough to be disturbed.
fn config() -> String {
    CONFIG.replace("profile = \"none\"", "profile = \"5g-mmwave\"")
}

/// All lines of a run's metrics.
pub fn metrics(nodes: &Nodes, run: &str) -> Vec<Value> {
    let path = nodes.runs().join("edge").join(run).join("metrics.jsonl");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
}

/// Kind, step, loss and accuracy of each line: what must not depend on faults.
pub fn curve(nodes: &Nodes, run: &str) -> Vec<(String, u64, f64, f64)> {
    let line = |v: &Value| {
        let number = |key: &str| v[key].as_f64().unwrap();
        let kind = v["kind"].as_str().unwrap().to_string();
        (kind, v["step"].as_u64().unwrap(), number("loss"), number("accuracy"))
    };
    metrics(nodes, run).iter().map(line).collect()
}

pub async fn reaches(nodes: &Nodes, run: &str, step: u64) {
    let there = async || {
        let last = metrics(nodes, run).last().and_then(|v| v["step"].as_u64());
        last.is_some_and(|s| s >= step).then_some(())
    };
    eventually("the run's progress", there).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
}

async fn undisturbed(config: &str) -> Vec<(String, u64, f64, f64)> {
    let mut nodes = Nodes::new(config);
    nodes.start_cloud().await;
    nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
    let curve = curve(&nodes, "a");
    // Three epochs of 40 steps (1,258 samples, 32 a batch), each with a validation.
    assert_eq!(curve.len(), 123);
    assert!(curve[119].2 < 0.7 * curve[0].2, "it does not learn: {curve:?}");
    curve
}

#[tokio::test]
async fn a_cloud_killed_in_the_middle_costs_nothing_but_time() {
    let expected = undisturbed(&config()).await;
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    let training = nodes.launch_training(&["--run", "a"]);
    reaches(&nodes, "a", 25).await;
    nodes.cloud = None;
    nodes.start_cloud().await;
    reaches(&nodes, "a", 60).await;
    // This time its disk is lost as well: the run begins again from the seed.
    nodes.cloud = None;
    fs::remove_dir_all(nodes.runs().join("cloud")).unwrap();
    nodes.start_cloud().await;
    nodes.finishes(training).await;
    assert_eq!(curve(&nodes, "a"), expected);
    let log = fs::read_to_string(nodes.path().join("train.log")).unwrap();
    assert!(log.contains("going back to step") && log.contains("going back to step 0"), "{log}");
}

#[tokio::test]
async fn an_edge_killed_in_the_middle_resumes() {
    let expected = undisturbed(&config()).await;
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    let training = nodes.launch_training(&["--run", "a"]);
    reaches(&nodes, "a", 47).await;
    drop(training);
    let again = nodes.edge_command(&["train", "--run", "a"]).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("continue it with --resume"));
    nodes.finishes(nodes.launch_training(&["--resume"])).await;
    assert_eq!(curve(&nodes, "a"), expected);
}

#[tokio::test]
async fn broken_connections_neither_lose_nor_double_a_step() {
    let expected = undisturbed(&config()).await;
    let mut nodes = Nodes::new(&config());
    nodes.start_cloud().await;
    let (port, breaks) = breaking_proxy(nodes.cloud_port).await;
    let cloud = format!("http://127.0.0.1:{port}");
    let training = nodes.launch_training(&["--run", "a", "--cloud", &cloud]);
    nodes.finishes(training).await;
    assert_eq!(curve(&nodes, "a"), expected);
    assert!(breaks.load(Ordering::Relaxed) >= 5, "the proxy did not break anything");
    // Both halves were in memory all the time, so nothing had to be taken back.
    let log = fs::read_to_string(nodes.path().join("train.log")).unwrap();
    assert!(log.contains("trying again") && !log.contains("going back"), "{log}");
}

/// Forwards to `port`, and breaks each of its first connections after some more bytes in either
/// direction, so that requests are lost as well as replies.
async fn breaking_proxy(port: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let breaks = Arc::new(AtomicU64::new(0));
    let counter = breaks.clone();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((edge, _)) = listener.accept().await {
            let cloud = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            number += 1;
            let counter = counter.clone();
            tokio::spawn(async move {
                let (mut edge_read, mut edge_write) = edge.into_split();
                let (mut cloud_read, mut cloud_write) = cloud.into_split();
                let limit = |n: u64| if number <= 8 { 20_000 + n * 7_919 } else { u64::MAX };
                let up = async {
                    copy(&mut edge_read, &mut cloud_write, limit(number)).await;
                };
                let down = async {
                    copy(&mut cloud_read, &mut edge_write, limit(2 * number)).await;
                };
                tokio::select! { () = up => {} () = down => {} }
                counter.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    (own, breaks)
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut left: u64,
) {
    let mut block = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut block).await {
        if n as u64 > left || to.write_all(&block[..n]).await.is_err() {
            return;
        }
        left -= n as u64;
    }
}

/// Every weight of a run's step, of both halves.
fn weights(nodes: &Nodes, run: &str, step: u64) -> Vec<(String, Vec<f32>)> {
    let mut weights = Vec::new();
    for node in ["edge", "cloud"] {
        let dir = nodes.runs().join(node).join(run).join(format!("step-{step:08}"));
        let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
            let bytes = fs::read(path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let values = |data: &[u8]| {
                data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
            };
            weights.extend(file.tensors().iter().map(|(name, t)| (name.clone(), values(t.data()))));
        }
    }
    weights.sort_by(|a, b| a.0.cmp(&b.0));
    weights
}

#[tokio::test]
async fn micro_batches_make_the_same_steps() {
    const PARTS: [&str; 4] = ["1", "2", "7", "\"auto\""];
    let adam = CONFIG.find("[train.optimizer]").unwrap();
    let sgd = "[train.optimizer]\nkind = \"sgd\"\nlearning_rate = 0.05\nmomentum = 0.9\n";
    let mut nodes = Nodes::new(&format!("{}{sgd}", &CONFIG[..adam]));
    nodes.start_cloud().await;
    for (i, parts) in PARTS.iter().enumerate() {
        let set = format!("train.micro_batches={parts}");
        let words = ["--run", &format!("r{i}"), "--no-deploy", "--set", &set];
        nodes.finishes(nodes.launch_training(&words)).await;
    }
    let plain = weights(&nodes, "r0", 120);
    for (i, parts) in PARTS.iter().enumerate().skip(1) {
        let piped = weights(&nodes, &format!("r{i}"), 120);
        assert_eq!(piped.len(), plain.len());
        for ((name, expected), (_, found)) in plain.iter().zip(&piped) {
            let pairs = expected.iter().zip(found);
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5, "{name} in {parts} parts: {worst:e}");
        }
        let steps = metrics(&nodes, &format!("r{i}"));
        let count = steps[0]["micro_batches"].as_u64().unwrap();
        assert!(*parts == "\"auto\"" || count.to_string() == *parts, "{}", steps[0]);
    }
    let log = fs::read_to_string(nodes.path().join("train.log")).unwrap();
    assert!(log.contains("micro-batches from now on"), "{log}");
}

#[tokio::test]
async fn what_was_trained_is_served_at_every_split() {
    let mut nodes = Nodes::start(CONFIG).await;
    let input = digits(&nodes.config(), 8);
    let before = nodes.infer(input.clone()).await.unwrap();
    assert_eq!(before.model_version, "seed-7");
    nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
    let deployed = eventually("the trained weights", async || {
        let reply = nodes.infer(input.clone()).await.expect("no request fails meanwhile");
        (reply.model_version == "a-120").then_some(reply)
    });
    let trained = deployed.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    assert_ne!(trained.raw_output_contents, before.raw_output_contents);

    // Stages move to the edge and to the cloud, and their weights with them.
    for split in [5, 0, 6, 1] {
        nodes.write_config(&CONFIG.replace("split_point = 2", &format!("split_point = {split}")));
        let moved = eventually("the new split point", async || {
            let reply = nodes.infer(input.clone()).await.expect("no request fails meanwhile");
            assert_eq!(reply.raw_output_contents, trained.raw_output_contents);
            (crate::nodes::split_point(&reply) == split).then_some(())
        });
        moved.await.unwrap_or_else(|| panic!("split {split}: {}", nodes.logs()));
    }
    // Training goes on, far enough for both nodes to drop old checkpoints, but not what is deployed.
    nodes.write_config(&CONFIG.replace("epochs = 3", "epochs = 6"));
    nodes.finishes(nodes.launch_training(&["--resume", "--no-deploy"])).await;
    // A restarted edge serves the same.
    nodes.edge = None;
    nodes.start_edge().await;
    let reply = nodes.infer(input).await.unwrap();
    assert_eq!(reply.raw_output_contents, trained.raw_output_contents);
}

#[tokio::test]
async fn several_edges_train_and_ask_at_once() {
    let expected = undisturbed(CONFIG).await;
    let nodes = Nodes::start(CONFIG).await;
    let input = digits(&nodes.config(), 4);
    let alone = nodes.infer(input.clone()).await.unwrap().raw_output_contents;
    let runs = ["a", "b", "c"];
    let trainings = runs.map(|run| nodes.launch_training(&["--run", run, "--no-deploy"]));
    let mut answers = 0;
    while !runs.iter().all(|run| curve(&nodes, run).len() == expected.len()) {
        let reply = nodes.infer(input.clone()).await.expect("training does not starve inference");
        assert_eq!(reply.raw_output_contents, alone);
        answers += 1;
    }
    assert!(answers > 0);
    for training in trainings {
        nodes.finishes(training).await;
    }
    for run in runs {
        assert_eq!(curve(&nodes, run), expected, "run {run}");
    }
}

#[tokio::test]
async fn a_run_is_not_continued_as_another_one() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let one = CONFIG.replace("epochs = 3", "epochs = 1");
    nodes.write_config(&one);
    nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
    let refused = |set: &str| {
        let words = ["train", "--resume", "--run", "a", "--set", set];
        let output = nodes.edge_command(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused("split_point=3");
    assert!(text.contains("another configuration: split_point was 2, is 3"), "{text}");
    let text = refused("train.batch_size=16");
    assert!(text.contains("batch_size was 32, is 16"), "{text}");
    // More epochs are the same run, going on.
    nodes.write_config(CONFIG);
    nodes.finishes(nodes.launch_training(&["--resume", "--run", "a"])).await;
    assert_eq!(curve(&nodes, "a"), undisturbed(CONFIG).await);
}
