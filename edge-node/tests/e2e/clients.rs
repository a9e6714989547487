//! Clients that nobody here wrote.

use std::process::Command;

use crate::nodes::{CONFIG, Nodes};

/// `tritonclient` over gRPC and HTTP, and a reflection client, from PyPI.
#[tokio::test]
async fn stock_clients_work_unchanged() {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let nodes = Nodes::start(CONFIG).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/oip_clients.py");
    let output = Command::new(python)
        .arg(script)
        .arg(format!("127.0.0.1:{}", nodes.grpc_port))
        .arg(format!("127.0.0.1:{}", nodes.http_port))
        .arg("digits")
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}\n{}", nodes.logs());
}
