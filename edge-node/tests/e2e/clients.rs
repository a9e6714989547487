//! Clients that nobody here wrote.

use std::{fs, process::Command};

use crate::nodes::{CONFIG, Nodes};

/// A script of tests/python with the edge's addresses, the model's name and `words`.
fn python(script: &str, nodes: &Nodes, words: &[&str]) {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let output = Command::new(python)
        .arg(format!("{}/../tests/python/{script}", env!("CARGO_MANIFEST_DIR")))
        .arg(format!("127.0.0.1:{}", nodes.grpc_port))
        .arg(format!("127.0.0.1:{}", nodes.http_port))
        .arg("digits")
        .args(words)
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}\n{}", nodes.logs());
}

/// `tritonclient` over gRPC and HTTP, and a reflection client, from PyPI.
#[tokio::test]
async fn stock_clients_work_unchanged() {
    let nodes = Nodes::start(CONFIG).await;
    python("oip_clients.py", &nodes, &[]);
}

/// `tritonclient`'s calls beside inference.
#[tokio::test]
async fn stock_clients_control_the_edge() {
    let mut nodes = Nodes::new(CONFIG);
    let token = nodes.path().join("token");
    fs::write(&token, "a-token-for-this-test").unwrap();
    nodes.edge_sets = vec![
        format!("edge.admin_token={}", token.display()),
        // Nobody listens there: what is traced goes nowhere.
        "trace.otlp=http://127.0.0.1:9".into(),
    ];
    nodes.start_cloud().await;
    nodes.start_edge().await;
    python("oip_control.py", &nodes, &["a-token-for-this-test"]);
}
