//! U-shaped split learning: PyTorch's numbers, and no label on the wire.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

use cleave_shared::wire::v1::{TrainRequest, train_request::Kind};
use prost::Message;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    nodes::{CONFIG, Nodes},
    topologies::{ADAM, LOCAL_STEPS, ROUNDS, SGD, TOLERANCE, reference},
};

const U_SHAPED: &str = "[train.topology]\nkind = \"u-shaped\"\nlast_split = 5\n";

/// Losses of a run's steps, from the first.
fn losses(nodes: &Nodes) -> Vec<f64> {
    let path = nodes.runs().join("edge").join("a").join("metrics.jsonl");
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.filter(|v| v["kind"] == "step").map(|v| v["loss"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn u_shaped_is_pytorchs() {
    let start = CONFIG.find("[train.optimizer]").unwrap();
    for (optimizer, micro_batches) in [(SGD, 1), (ADAM, 1), (SGD, 4)] {
        let parts = format!("epochs = 1\nbatch_size = 16\nmicro_batches = {micro_batches}");
        let base = CONFIG[..start].replace("epochs = 3", &parts);
        let config = format!("{base}[train.optimizer]\n{optimizer}\n{U_SHAPED}");
        let mut nodes = Nodes::new(&config);
        nodes.start_cloud().await;
        nodes.finishes(nodes.launch_training(&["--run", "a", "--no-deploy"])).await;
        let folder = nodes.path().join("case");
        fs::create_dir(&folder).unwrap();
        let (expected, _) = reference(&nodes.config(), &folder);
        assert_eq!(expected.len() as u64, ROUNDS * LOCAL_STEPS);
        let pairs = losses(&nodes).into_iter().zip(expected.into_values());
        let worst = pairs.map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        println!("u-shaped in {micro_batches}, {optimizer:?}: losses {worst:.1e}");
        assert!(worst < TOLERANCE, "{worst:e}");
    }
}

/// Labels are values of a regression that occur nowhere else.
fn label(row: usize) -> f32 {
    1000.123 + 7.31 * row as f32
}

fn regression(topology: &str) -> String {
    format!(
        "split_point = 1\n[model]\nfamily = \"mlp\"\ninput = [1, 2, 2]\nhidden = [8, 8]\nclasses = 1\n\
         [data]\nkind = \"csv\"\npath = \"data.csv\"\nlabel = \"y\"\ntarget = \"value\"\n\
         [link]\nprofile = \"none\"\n[train]\nepochs = 2\nbatch_size = 8\nloss = \"mse\"\n\
         [train.optimizer]\nkind = \"sgd\"\nlearning_rate = 1e-7\nmomentum = 0.0\n{topology}"
    )
}

const ROWS: usize = 60;

/// Trains behind a recording proxy; gives what left the edge, by connection.
async fn capture(topology: &str) -> Vec<Vec<u8>> {
    let mut nodes = Nodes::new(&regression(topology));
    let rows = (0..ROWS).map(|i| {
        let x = |k: usize| ((i * 13 + k * 29) % 17) as f32 / 17.0;
        format!("{},{},{},{},{}\n", x(1), x(2), x(3), x(4), label(i))
    });
    let text = format!("a,b,c,d,y\n{}", rows.collect::<String>());
    fs::write(nodes.path().join("data.csv"), text).unwrap();
    nodes.start_cloud().await;
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let port = recording_proxy(nodes.cloud_port, recorded.clone()).await;
    let cloud = format!("http://127.0.0.1:{port}");
    let words = ["--run", "a", "--no-deploy", "--cloud", &cloud];
    nodes.finishes(nodes.launch_training(&words)).await;
    let recorded = recorded.lock().unwrap();
    recorded.iter().map(|c: &Arc<Mutex<Vec<u8>>>| c.lock().unwrap().clone()).collect()
}

type Recorded = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

async fn recording_proxy(port: u16, recorded: Recorded) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((edge, _)) = listener.accept().await {
            let cloud = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let bytes = Arc::new(Mutex::new(Vec::new()));
            recorded.lock().unwrap().push(bytes.clone());
            let (mut edge_read, mut edge_write) = edge.into_split();
            let (mut cloud_read, mut cloud_write) = cloud.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut cloud_read, &mut edge_write).await });
            tokio::spawn(async move {
                let mut block = [0; 4096];
                while let Ok(n @ 1..) = edge_read.read(&mut block).await {
                    bytes.lock().unwrap().extend_from_slice(&block[..n]);
                    if cloud_write.write_all(&block[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    own
}

/// Labels whose bytes are anywhere in what was recorded.
fn labels_in(connections: &[Vec<u8>]) -> usize {
    let is_in = |row: &usize| {
        let bytes = label(*row).to_le_bytes();
        connections.iter().any(|c| c.windows(4).any(|window| window == bytes))
    };
    (0..ROWS).filter(is_in).count()
}

/// The messages of the training streams: DATA frames of HTTP/2 (RFC 9113), then gRPC's prefixes.
fn messages(connection: &[u8]) -> Vec<TrainRequest> {
    let mut rest = connection.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("HTTP/2");
    let mut streams: BTreeMap<[u8; 4], Vec<u8>> = BTreeMap::new();
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        if head[3] == 0 {
            assert_eq!(head[4] & 0x8, 0, "no padding");
            let stream = [head[5], head[6], head[7], head[8]];
            streams.entry(stream).or_default().extend_from_slice(payload);
        }
        rest = after;
    }
    let mut found = Vec::new();
    for stream in streams.values() {
        let mut rest = &stream[..];
        while let Some((prefix, after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            found.push(TrainRequest::decode(&after[..length]).expect("a training message"));
            rest = &after[length..];
        }
    }
    found
}

/// Messages with and without labels, of those that have an activation.
fn with_labels(connections: &[Vec<u8>]) -> (usize, usize) {
    let all = connections.iter().flat_map(|c| messages(c));
    let labels = all.filter_map(|message| match message.kind {
        Some(Kind::Prepare(micro)) => Some(micro.labels),
        Some(Kind::Evaluate(batch)) => Some(batch.labels),
        _ => None,
    });
    let (with, without): (Vec<_>, Vec<_>) = labels.partition(Option::is_some);
    (with.len(), without.len())
}

#[tokio::test]
async fn no_label_leaves_a_u_shaped_edge() {
    // 42 rows in batches of 8 and 6 for validation, two epochs: 14 messages. The same search finds the
    // labels where they are sent: all but those of the 12 rows that are kept for the test.
    let vanilla = capture("").await;
    assert_eq!(labels_in(&vanilla), ROWS - 12);
    assert_eq!(with_labels(&vanilla), (14, 0));
    let u_shaped = capture(&U_SHAPED.replace("last_split = 5", "last_split = 2")).await;
    assert_eq!(with_labels(&u_shaped), (0, 14));
    assert_eq!(labels_in(&u_shaped), 0);
}
