//! A model with several integer inputs of any length: BERT with weights and tokenizer from transformers.

use std::{path::Path, process::Command};

use bytes::Bytes;
use edge_node::proto::inference::{
    InferTensorContents, ModelInferRequest, model_infer_request::InferInputTensor,
};

use crate::nodes::{Nodes, split_point};

const CONFIG: &str = r#"
[model]
family = "bert"
vocab_size = 23
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 24
max_position_embeddings = 24
head = "classify"
classes = 3
[edge]
model_name = "bert"
[link]
profile = "none"
"#;

fn python(arguments: &[&str]) -> String {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/oip_bert.py");
    let output = Command::new(python).arg(script).args(arguments).output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

fn config(split: usize, weights: &Path) -> String {
    format!(
        "split_point = {split}\n{CONFIG}[weights]\nfile = {:?}\n",
        weights.display().to_string()
    )
}

/// Two texts of different lengths, typed.
fn texts() -> ModelInferRequest {
    let texts = ["the cloud is slow", "a link , a cut !"].map(|t| Bytes::from_static(t.as_bytes()));
    let contents = InferTensorContents { bytes_contents: texts.to_vec(), ..Default::default() };
    let input = InferInputTensor {
        name: "text".into(),
        datatype: "BYTES".into(),
        shape: vec![2],
        contents: Some(contents),
        ..Default::default()
    };
    ModelInferRequest { model_name: "bert".into(), inputs: vec![input], ..Default::default() }
}

#[tokio::test]
async fn a_split_bert_answers_as_transformers_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    python(&["make", &place]);
    let mut nodes = Nodes::start(&config(2, folder.path())).await;
    let addresses = [nodes.grpc_port, nodes.http_port].map(|port| format!("127.0.0.1:{port}"));
    let text = python(&["check", &place, &addresses[0], &addresses[1]]);
    println!("{text}");
    let expected = nodes.client().await.model_infer(texts()).await.unwrap().into_inner();
    assert_eq!(expected.outputs[0].shape, [2, 3]);
    // Token ids cross the cut, then hidden states and the mask, then one vector; then nothing does.
    for split in [0, 1, 3, 4, 5] {
        nodes.edge = None;
        nodes.write_config(&config(split, folder.path()));
        nodes.start_edge().await;
        let reply = nodes.client().await.model_infer(texts()).await.unwrap().into_inner();
        assert_eq!(split_point(&reply), split as u64);
        assert_eq!(reply.raw_output_contents, expected.raw_output_contents, "split at {split}");
    }
}

#[tokio::test]
async fn a_tokenizer_of_another_model_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    python(&["make", &folder.path().display().to_string()]);
    let smaller = config(2, folder.path()).replace("vocab_size = 23", "vocab_size = 22");
    let nodes = Nodes::new(&smaller);
    let output = nodes.edge_command(&["serve"]).output().expect("it ends by itself");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("has 23 tokens, the model's vocabulary 22"), "{error}");
}
