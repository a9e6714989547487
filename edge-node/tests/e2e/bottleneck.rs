//! Learned bottlenecks with the real programs: trained across the link, served, refused elsewhere.

use std::fs;

use cleave_shared::{
    checkpoint::RunStore,
    data::{Part, gather},
    model::loss::argmax,
    tensor::HostTensor,
};
use edge_node::proto::inference::ModelInferResponse;
use serde_json::Value;

use crate::nodes::{CONFIG, Nodes, digits, eventually};

/// Enough epochs that the model knows the digits, cut behind the second pooling: `[8, 2, 2]`.
fn config(codec: &str) -> String {
    let codec = format!("[codec]\nactivation = \"{codec}\"\n[train]\n");
    CONFIG
        .replace("epochs = 3", "epochs = 8")
        .replace("split_point = 2", "split_point = 4")
        .replace("[train]\n", &codec)
}

fn classes(reply: &ModelInferResponse) -> Vec<i64> {
    let floats = reply.raw_output_contents[0].chunks(4);
    let logits: Vec<f32> = floats.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    logits.chunks(10).map(|row| argmax(row) as i64).collect()
}

fn agreeing(a: &[i64], b: &[i64]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// Files of the newest checkpoint of a run.
fn stages(nodes: &Nodes, node: &str, run: &str) -> Vec<String> {
    let store = RunStore::new(nodes.runs().join(node));
    let step = *store.steps(run).last().expect("a checkpoint");
    store.stages(run, step).unwrap().into_iter().collect()
}

#[tokio::test]
async fn a_bottleneck_is_trained_served_and_bound_to_its_cut() {
    let mut nodes = Nodes::new(&config("f32"));
    nodes.start_cloud().await;
    nodes.done(&["train", "--run", "a"]).await;
    let small = ["--width", "16", "--stride", "2", "--name", "b"];
    let bad = nodes.refused(&["bottleneck", "train", "--width", "8", "--stride", "3"]).await;
    assert!(bad.contains("--at: a stride of 3 does not divide [8, 2, 2]"), "{bad}");
    let train = [&["bottleneck", "train", "--run", "a", "--epochs", "20"], &small[..]].concat();
    let said = nodes.done(&train).await;
    assert!(said.contains("activation has 128 bytes, its code 16;"), "{said}");
    assert_eq!(stages(&nodes, "edge", "b"), ["encode"]);
    assert_eq!(stages(&nodes, "cloud", "b"), ["decode"]);
    losses_fell_and_a_killed_run_goes_on(&mut nodes, &train).await;
    it_is_no_model(&nodes).await;

    nodes.start_edge().await;
    let input = digits(&nodes.config(), 360);
    let exact = nodes.infer(input.clone()).await.unwrap();
    // The codec can be changed while the edge serves.
    nodes.write_config(&config("bottleneck:b"));
    let through = eventually("the bottleneck", async || {
        let reply = nodes.infer(input.clone()).await.expect("requests go on");
        (reply.raw_output_contents != exact.raw_output_contents).then_some(reply)
    });
    let through = through.await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    let agreed = agreeing(&classes(&through), &classes(&exact));
    assert!(agreed > 0.9, "{agreed}");
    let dataset = nodes.config().data.open().unwrap();
    let split = dataset.split(nodes.config().seed);
    let labels = gather(dataset.as_ref(), split.indices(Part::Test)).labels.to_i64().unwrap();
    let right = [&through, &exact].map(|reply| agreeing(&classes(reply), &labels));
    assert!(right[0] > right[1] - 0.05, "{right:?}");
    bound_to_its_cut(&nodes, input, &through).await;
}

/// The loss is the distance to the uncut model; steps that both nodes hold are not taken again.
async fn losses_fell_and_a_killed_run_goes_on(nodes: &mut Nodes, train: &[&str]) {
    let metrics = nodes.runs().join("edge/b/metrics.jsonl");
    let losses = || -> Vec<f64> {
        let text = fs::read_to_string(&metrics).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|l| l["kind"] == "step").map(|l| l["loss"].as_f64().unwrap()).collect()
    };
    let first = losses();
    assert_eq!(first.len(), 800);
    assert!(first[799] * 4.0 < first[0], "{} to {}", first[0], first[799]);
    let text = nodes.refused(train).await;
    assert!(text.contains("run b exists: continue it with --resume"), "{text}");
    // A cloud that lost its newest checkpoint: both go on from the one before, to the same end.
    let encoder = nodes.runs().join("edge/b/step-00000800/encode.safetensors");
    let weights = || fs::read(&encoder).unwrap();
    let before = weights();
    nodes.cloud = None;
    fs::remove_dir_all(nodes.runs().join("cloud/b/step-00000800")).unwrap();
    nodes.start_cloud().await;
    let text = nodes.done(&[train, &["--resume"]].concat()).await;
    assert!(text.contains("trained b: 800 steps"), "{text}");
    assert!(nodes.runs().join("cloud/b/step-00000800").is_dir());
    assert_eq!(weights(), before, "bit for bit");
    assert_eq!(losses(), first);
}

async fn it_is_no_model(nodes: &Nodes) {
    for words in
        [&["validate", "--run", "b"][..], &["serve", "--run", "b"], &["audit", "--run", "b"]]
    {
        let text = nodes.refused(words).await;
        assert!(text.contains("b is a bottleneck of run:a:320, served as codec"), "{text}");
    }
    // The newest run is that of the model.
    let text = nodes.done(&["validate"]).await;
    assert!(text.starts_with("a after 320 steps"), "{text}");
    let set = ["train", "--set", "codec.activation=\"bottleneck:b\""];
    let text = nodes.refused(&set).await;
    assert!(text.contains("\"bottleneck:b\" belongs to weights that do not change"), "{text}");
}

async fn bound_to_its_cut(nodes: &Nodes, input: HostTensor, through: &ModelInferResponse) {
    nodes.write_config(&config("bottleneck:b").replace("split_point = 4", "split_point = 2"));
    let words = "codec.activation: bottleneck b is for split point 4 of run:a:320, not for split \
                 point 2 of run:a:320";
    nodes.edge_says(words).await;
    // What was in force stays in force.
    let reply = nodes.infer(input.clone()).await.unwrap();
    assert_eq!(reply.raw_output_contents, through.raw_output_contents);
    nodes.write_config(&config("bottleneck:c"));
    nodes.edge_says("codec.activation: c is no bottleneck of").await;
}

#[tokio::test]
async fn a_cloud_that_lacks_the_decoder_or_does_not_allow_it_says_so() {
    let mut nodes = Nodes::new(&config("f32").replace("epochs = 8", "epochs = 1"));
    nodes.start_cloud().await;
    nodes.done(&["train", "--run", "a"]).await;
    let words =
        ["bottleneck", "train", "--width", "2", "--stride", "2", "--epochs", "1", "--name", "b"];
    nodes.done(&words).await;
    let moved = nodes.path().join("moved");
    fs::rename(nodes.runs().join("cloud/b"), moved).unwrap();
    nodes.write_config(&config("bottleneck:b"));
    nodes.launch_edge();
    nodes.edge_says("activation codec: the cloud has no run b").await;

    nodes.cloud = None;
    let only = "[codec]\nallowed = [\"f32\"]\n";
    nodes.write_config(&config("bottleneck:b").replace("[codec]\n", only));
    nodes.start_cloud().await;
    nodes.edge_says("\"bottleneck:b:40\" is not in codec.allowed").await;
}
