//! Checkpoints in a bucket: both nodes lose their disks, and the run goes on.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use crate::nodes::{CONFIG, Nodes, Process, eventually};

/// moto, which speaks S3, with an empty bucket; it ends with the process. Gives its port as well.
fn s3_server() -> (Process, String) {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/s3_server.py");
    let mut command = Command::new(python);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = Process(command.spawn().expect("python starts"));
    let mut line = String::new();
    let output = server.0.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("a line");
    (server, line.trim().to_string())
}

/// The weights of both nodes' last step, by file. An optimiser's state has the order of a hash map.
fn last_step(nodes: &Nodes) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for node in ["edge", "cloud"] {
        let folder = nodes.runs().join(node).join("a").join("step-00000120");
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = format!("{node} {}", entry.file_name().to_string_lossy());
            if name.ends_with(".safetensors") {
                files.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    assert_eq!(files.len(), 6, "{:?}", files.keys());
    files
}

#[tokio::test]
async fn both_nodes_go_on_from_a_bucket_without_their_disks() {
    let mut undisturbed = Nodes::new(CONFIG);
    undisturbed.start_cloud().await;
    undisturbed.finishes(undisturbed.launch_training(&["--run", "a"])).await;

    let (_server, port) = s3_server();
    let slow = CONFIG.replace("profile = \"none\"", "profile = \"5g-mmwave\"");
    let mut nodes = Nodes::new(&format!("{slow}\n[runs]\nstore = \"s3://bucket/cleave\"\n"));
    nodes.environment = vec![
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "somebody".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "us-east-1".into()),
    ];
    nodes.start_cloud().await;
    let training = nodes.launch_training(&["--run", "a"]);
    let step = nodes.runs().join("edge").join("a").join("step-00000050");
    let there = async || step.exists().then_some(());
    eventually("a checkpoint", there).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    drop(training);
    nodes.cloud = None;
    fs::remove_dir_all(nodes.runs()).unwrap();

    nodes.start_cloud().await;
    let again = nodes.edge_command(&["train", "--run", "a"]).output().unwrap();
    let refusal = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(refusal.contains("run a exists: continue it with --resume"), "{refusal}");
    nodes.finishes(nodes.launch_training(&["--resume", "--run", "a"])).await;
    let metrics = fs::read_to_string(nodes.runs().join("edge").join("a").join("metrics.jsonl"));
    let lines = metrics.unwrap().lines().count();
    // The edge has step 50 on its disk, so step 40 is in the bucket, from both.
    assert!(lines <= 123 - 40, "it began again from the seed: {lines} lines");
    assert!(last_step(&nodes) == last_step(&undisturbed), "the weights are not those of one run");
}
