//! What a certificate is good for, and whose it is, looked at by both sides of the handshake; the other side is OpenSSL's
//! own client.

use std::process::{Command, Stdio};

use crate::nodes::{CONFIG, Nodes, output};

/// A cloud that serves whom its authority has signed, and the certificates of an edge beside it.
async fn cloud() -> Nodes {
    let mut nodes = Nodes::new(CONFIG);
    let mut certs = Command::new(env!("CARGO_BIN_EXE_edge-node"));
    certs.current_dir(nodes.path()).args(["certs", "--dir", "certs"]);
    let made = output(certs).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let names = [("ca", "ca.pem"), ("certificate", "node.pem"), ("key", "node-key.pem")];
    let folder = nodes.path().join("certs/cloud");
    let set = |(key, name): (&str, &str)| format!("security.{key}={}", folder.join(name).display());
    nodes.cloud_sets = names.map(set).into();
    nodes.launch_cloud();
    nodes.cloud_healthy().await;
    nodes
}

/// Whether `openssl s_client` ended well, and all that it said; it shows the edge's certificate `own`.
async fn client(nodes: &Nodes, own: &str, words: &[&str]) -> (bool, String) {
    let certs = nodes.path().join("certs");
    let mut command = Command::new("openssl");
    let cloud = format!("127.0.0.1:{}", nodes.cloud_port);
    command.args(["s_client", "-connect", &cloud, "-alpn", "h2", "-servername", "localhost"]);
    command.arg("-CAfile").arg(certs.join("ca/ca.pem"));
    command.arg("-cert").arg(certs.join(format!("edge/{own}.pem")));
    command.arg("-key").arg(certs.join(format!("edge/{own}-key.pem")));
    command.args(words).stdin(Stdio::null());
    let said = output(command).await;
    let [text, errors] = [&said.stdout, &said.stderr].map(|s| String::from_utf8_lossy(s));
    (said.status.success(), format!("{text}{errors}"))
}

#[tokio::test]
async fn a_certificate_for_another_purpose_opens_no_cloud() {
    let nodes = cloud().await;
    // Of the right authority and for the edge's name, but what it shows its own clients: good for a server alone. In
    // TLS 1.3 the client is done before the server has looked, and has to wait for its verdict.
    let (_, text) = client(&nodes, "clients", &["-ign_eof"]).await;
    assert!(text.contains("alert unsupported certificate"), "{text}");
    let (well, text) = client(&nodes, "node", &[]).await;
    assert!(well && text.contains("ALPN protocol: h2") && !text.contains("alert"), "{text}");
}

#[tokio::test]
async fn a_client_that_looks_at_the_name_refuses_another_cloud() {
    let nodes = cloud().await;
    let named = async |name: &str| {
        client(&nodes, "node", &["-verify_hostname", name, "-verify_return_error"]).await
    };
    let (well, text) = named("localhost").await;
    assert!(well && text.contains("Verify return code: 0 (ok)"), "{text}");
    let (well, text) = named("other.example").await;
    assert!(!well && text.to_lowercase().contains("hostname mismatch"), "{text}");
    assert!(text.contains("certificate verify failed"), "it went on: {text}");
}
