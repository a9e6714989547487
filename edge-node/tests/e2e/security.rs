//! Mutual TLS, tokens and names between the real nodes; strangers come with OpenSSL's own client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use cleave_shared::{
    health,
    wire::v1::{self, generate_request::Kind, split_service_client::SplitServiceClient},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status};

use crate::nodes::{CONFIG, Nodes, digits, eventually, output, refused, split_point};

/// A cloud and an edge that know each other. Nothing runs yet.
async fn acquainted() -> Nodes {
    let mut nodes = Nodes::new(CONFIG);
    certify(&nodes, "certs").await;
    let files = |node: &str| identity(&nodes.path().join("certs").join(node));
    (nodes.cloud_sets, nodes.edge_sets) = (files("cloud"), files("edge"));
    nodes.edge_sets.push(format!("edge.cloud=https://localhost:{}", nodes.cloud_port));
    nodes
}

async fn certify(nodes: &Nodes, folder: &str) {
    let made = output(certs(nodes, folder)).await;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// `edge-node certs`, which needs no configuration.
fn certs(nodes: &Nodes, folder: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-node"));
    command.current_dir(nodes.path()).args(["certs", "--dir", folder]);
    command
}

/// The settings that name what is in a node's folder.
fn identity(folder: &Path) -> Vec<String> {
    let names = [("ca", "ca.pem"), ("certificate", "node.pem"), ("key", "node-key.pem")];
    let set = |(key, name): (&str, &str)| format!("security.{key}={}", folder.join(name).display());
    names.map(set).into()
}

#[tokio::test]
async fn nodes_that_know_each_other_train_and_serve() {
    let mut nodes = acquainted().await;
    nodes.cloud_sets.push("security.edges=[\"edge\"]".into());
    nodes.launch_cloud();
    nodes.cloud_healthy().await;
    nodes.start_edge().await;
    nodes.finishes(nodes.launch_training(&["--run", "a"])).await;
    let reply = nodes.infer(digits(&nodes.config(), 4)).await.unwrap();
    assert_eq!(split_point(&reply), 2);
    let port = nodes.cloud_port;
    let plain = health::check(([127, 0, 0, 1], port).into()).await;
    assert!(plain.is_err(), "without TLS the cloud says nothing, not even of its health");
    assert!(nodes.cloud.take().unwrap().terminate().success());
}

#[tokio::test]
async fn strangers_get_no_further_than_the_handshake() {
    let mut nodes = acquainted().await;
    certify(&nodes, "others").await;
    let ca = nodes.path().join("certs/ca/ca.pem");
    let expired = expired(&nodes.path().join("certs"));
    nodes.launch_cloud();
    nodes.cloud_healthy().await;
    let port = nodes.cloud_port;
    let ask = async |words: &[&str], own| stranger(port, &ca, words, own).await;

    let friend = ask(&[], Some(nodes.path().join("certs/edge"))).await;
    assert!(friend.contains("TLSv1.3") && friend.contains("ALPN protocol: h2"), "{friend}");
    assert!(friend.contains("Verify return code: 0 (ok)") && !friend.contains("alert"), "{friend}");

    let nobody = ask(&["-ign_eof"], None).await;
    assert!(nobody.contains("alert certificate required"), "{nobody}");
    let late = ask(&["-ign_eof"], Some(expired)).await;
    assert!(late.contains("alert certificate expired"), "{late}");
    let other = ask(&["-ign_eof"], Some(nodes.path().join("others/edge"))).await;
    assert!(other.contains("alert unknown ca") || other.contains("alert decrypt error"), "{other}");
    for old in ["-tls1_2", "-tls1_1"] {
        let own = Some(nodes.path().join("certs/edge"));
        // What this OpenSSL itself would refuse tells nothing of the cloud.
        let text = ask(&[old, "-cipher", "DEFAULT@SECLEVEL=0"], own).await;
        let alerts = ["alert protocol version", "alert handshake failure"];
        assert!(alerts.iter().any(|alert| text.contains(alert)), "{old}: {text}");
    }
    // An edge's certificate does not make it a cloud.
    nodes.cloud = None;
    nodes.cloud_sets = identity(&nodes.path().join("certs/edge"));
    nodes.launch_cloud();
    let log = nodes.path().join("cloud.log");
    let tried = output(nodes.edge_command(&["profile"])).await;
    assert_eq!(tried.status.code(), Some(1), "{}", String::from_utf8_lossy(&tried.stdout));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("no handshake"), "{log}");
}

/// A certificate of this authority that was valid until yesterday, in a folder as those of nodes.
fn expired(certs: &Path) -> PathBuf {
    let key = KeyPair::from_pem(&fs::read_to_string(certs.join("ca/ca-key.pem")).unwrap()).unwrap();
    let ca = fs::read_to_string(certs.join("ca/ca.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, key).unwrap();
    let mut params = CertificateParams::new(vec!["edge".to_string()]).unwrap();
    let day = Duration::from_secs(24 * 60 * 60);
    params.not_before = (SystemTime::now() - day * 9).into();
    params.not_after = (SystemTime::now() - day).into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let own = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&own, &issuer).unwrap();
    let folder = certs.join("expired");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("node.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("node-key.pem"), own.serialize_pem()).unwrap();
    folder
}

/// What `openssl s_client` says to the cloud, and of it.
async fn stranger(port: u16, ca: &Path, words: &[&str], own: Option<PathBuf>) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-alpn", "h2"]);
    command.args(["-servername", "localhost", "-verify_hostname", "localhost", "-CAfile"]).arg(ca);
    command.args(words).stdin(Stdio::null());
    if let Some(folder) = own {
        command.arg("-cert").arg(folder.join("node.pem"));
        command.arg("-key").arg(folder.join("node-key.pem"));
    }
    let said = output(command).await;
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}

#[tokio::test]
async fn names_and_tokens_decide_who_is_served() {
    let mut nodes = acquainted().await;
    nodes.cloud_sets.push("security.edges=[\"another\"]".into());
    nodes.launch_cloud();
    nodes.cloud_healthy().await;
    let refusal = nodes.refused(&["train", "--run", "a"]).await;
    assert!(refusal.contains("edge is not among the cloud's security.edges"), "{refusal}");

    // Tokens, on this machine alone and without certificates.
    nodes.cloud = None;
    let folder = nodes.path().to_path_buf();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    nodes.cloud_sets = vec![
        format!(
            "security.tokens={}",
            file("tokens", "one 0123456789abcdef\ntwo fedcba9876543210\n")
        ),
        "security.edges=[\"one\"]".into(),
    ];
    nodes.edge_sets.clear();
    nodes.start_cloud().await;
    let refusal = nodes.refused(&["train", "--run", "b"]).await;
    assert!(refusal.contains("set security.token"), "{refusal}");
    nodes.edge_sets = vec![format!("security.token={}", file("token", "fedcba9876543210"))];
    let refusal = nodes.refused(&["train", "--run", "c"]).await;
    assert!(refusal.contains("two is not among the cloud's security.edges"), "{refusal}");
    file("token", "0123456789abcdef\n");
    nodes.done(&["train", "--run", "d"]).await;
}

#[tokio::test]
async fn certificates_are_exchanged_while_the_nodes_run() {
    let mut nodes = acquainted().await;
    nodes.launch_cloud();
    nodes.cloud_healthy().await;
    nodes.done(&["train", "--run", "a"]).await;
    // Another authority altogether, in the same files.
    fs::remove_dir_all(nodes.path().join("certs/ca")).unwrap();
    let old = nodes.path().join("old");
    copy(&nodes.path().join("certs/edge"), &old);
    certify(&nodes, "certs").await;
    // Files are looked at once a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    nodes.cloud_healthy().await;
    nodes.done(&["train", "--run", "b"]).await;
    let ca = nodes.path().join("certs/ca/ca.pem");
    let text = stranger(nodes.cloud_port, &ca, &["-ign_eof"], Some(old)).await;
    assert!(text.contains("alert unknown ca") || text.contains("alert decrypt error"), "{text}");
    assert_eq!(nodes.logs().matches("cloud node serves").count(), 1, "it was not started again");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn nothing_leaves_the_machine_unencrypted_by_mistake() {
    let mut nodes = acquainted().await;
    let everywhere = format!("cloud.listen=0.0.0.0:{}", nodes.cloud_port);
    let cloud = |nodes: &Nodes, words: &[&str]| {
        let mut command = nodes.cloud_command(&["serve"]);
        command.args(words);
        command
    };
    let identity = std::mem::replace(&mut nodes.cloud_sets, vec![everywhere]);
    let text = refused(cloud(&nodes, &[])).await;
    assert!(text.contains("cloud.listen") && text.contains("edge-node certs"), "{text}");
    let incomplete = output(cloud(&nodes, &["--set", &identity[1], "--set", &identity[2]])).await;
    let text = String::from_utf8(incomplete.stderr).unwrap();
    assert_eq!(incomplete.status.code(), Some(2), "{text}");
    assert!(text.contains("security.ca: is missing"), "{text}");

    let secure = std::mem::take(&mut nodes.edge_sets);
    nodes.edge_sets = vec!["edge.cloud=http://192.0.2.1:50051".into()];
    let text = nodes.refused(&["train", "--run", "a"]).await;
    assert!(text.contains("would not be encrypted"), "{text}");
    nodes.edge_sets = vec!["edge.http_listen=0.0.0.0:0".into()];
    let text = nodes.refused(&["serve"]).await;
    assert!(text.contains("security.plaintext = [\"clients\"]"), "{text}");
    nodes.edge_sets = secure[..3].to_vec();
    let text = nodes.refused(&["train", "--run", "b"]).await;
    assert!(text.contains("write https://"), "{text}");

    nodes.edge_sets = vec!["trace.otlp=http://collector:4317".into()];
    let traces = output(nodes.edge_command(&["serve"])).await;
    let text = String::from_utf8(traces.stderr).unwrap();
    assert!(text.contains("trace.otlp: what is sent to http://collector:4317"), "{text}");
    assert!(text.contains("security.plaintext = [\"traces\"]"), "{text}");
    let open =
        ["--set", "security.plaintext=[\"link\"]", "--set", "cloud.metrics_listen=0.0.0.0:0"];
    let text = refused(cloud(&nodes, &open)).await;
    assert!(text.contains("cloud.metrics_listen: other machines reach"), "{text}");
    assert!(text.contains("security.plaintext = [\"metrics\"]"), "{text}");

    // In as many words, it may be.
    nodes.edge_sets.clear();
    nodes.cloud_sets.push("security.plaintext=[\"link\"]".into());
    nodes.launch_cloud();
    nodes.cloud_healthy().await;
}

/// `curl` on the edge's REST port: the status, or what it says against the connection.
async fn curl(nodes: &Nodes, scheme: &str, words: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "20", "--output", "/dev/null"]);
    command.args(["--write-out", "%{http_code}"]).args(words);
    command.arg(format!("{scheme}://localhost:{}/v2/health/ready", nodes.http_port));
    let output = output(command).await;
    let said = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&said).trim().into()
}

#[tokio::test]
async fn clients_of_the_edge_are_encrypted_if_it_has_an_identity_for_them() {
    let mut nodes = Nodes::new(CONFIG);
    certify(&nodes, "certs").await;
    certify(&nodes, "others").await;
    let own = nodes.path().join("certs/edge");
    let set = |key, name| format!("security.clients.{key}={}", own.join(name).display());
    nodes.edge_sets = vec![set("certificate", "clients.pem"), set("key", "clients-key.pem")];
    // Other machines may reach it then.
    nodes.edge_sets.push(format!("edge.http_listen=0.0.0.0:{}", nodes.http_port));
    nodes.start_cloud().await;
    nodes.launch_edge();
    let healthy = async || {
        let output = output(nodes.edge_command(&["health"])).await;
        output.status.success().then_some(())
    };
    eventually("a healthy edge", healthy).await.unwrap_or_else(|| panic!("{}", nodes.logs()));

    let ca = |folder: &str| nodes.path().join(folder).join("ca/ca.pem").display().to_string();
    let (right, wrong) = (ca("certs"), ca("others"));
    assert_eq!(curl(&nodes, "https", &["--cacert", &right]).await, "200");
    let stranger = curl(&nodes, "https", &["--cacert", &wrong]).await;
    assert!(stranger.contains("certificate"), "{stranger}");
    let old = curl(&nodes, "https", &["--cacert", &right, "--tls-max", "1.2"]).await;
    assert!(old.contains("alert protocol version"), "{old}");
    assert!(curl(&nodes, "http", &[]).await.starts_with("curl: "), "it speaks without TLS");
    let plain = health::check(([127, 0, 0, 1], nodes.grpc_port).into()).await;
    assert!(plain.is_err(), "without TLS the edge says nothing");

    nodes.edge_sets.remove(1);
    let half = output(nodes.edge_command(&["serve"])).await;
    assert_eq!(half.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&half.stderr).contains("security.clients.key: is missing"));
}

/// A model that generates, all of it in the cloud.
const TOKENS: &str = r#"
split_point = 0
[model]
family = "gpt2"
vocab_size = 17
n_positions = 8
n_embd = 16
n_layer = 1
n_head = 2
"#;

/// A call of the edge with this token.
fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("Bearer {token}").parse().expect("no odd characters");
    request.metadata_mut().insert("authorization", header);
    request
}

fn refused_for_want_of_room(status: &Status, limit: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains(limit), "{limit}: {status}");
    let wait = status.metadata().get("grpc-retry-pushback-ms").expect("when to ask again");
    assert!(wait.to_str().unwrap().parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn each_edge_has_its_own_quota() {
    let [one, two] = ["0123456789abcdef", "fedcba9876543210"];
    let mut nodes = Nodes::new(TOKENS);
    let tokens = nodes.path().join("tokens");
    fs::write(&tokens, format!("one {one}\ntwo {two}\n")).unwrap();
    nodes.cloud_sets = vec![
        format!("security.tokens={}", tokens.display()),
        "security.quota.sessions=1".into(),
        "security.quota.calls_per_s=3".into(),
    ];
    nodes.start_cloud().await;
    let address = format!("http://127.0.0.1:{}", nodes.cloud_port);
    let mut client = SplitServiceClient::connect(address).await.unwrap();

    let agreement = nodes.config().agreement(0, "seed:7");
    let open = |session: &str| {
        let open = v1::GenerateOpen {
            agreement: Some(agreement.clone()),
            session: session.into(),
            max_positions: 4,
            sampling: Some(v1::Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }),
        };
        let message = v1::GenerateRequest { kind: Some(Kind::Open(open)) };
        tokio_stream::once(message).chain(tokio_stream::pending())
    };
    let first = client.generate(by(one, open("a"))).await.expect("a session");
    let second = client.generate(by(one, open("b"))).await.expect_err("a second session");
    refused_for_want_of_room(&second, "security.quota.sessions");
    client.generate(by(two, open("c"))).await.expect("another edge's session");
    drop(first);

    // More than three calls a second, unless the machine takes a third of one for each.
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(client.probe(by(two, v1::ProbeRequest::default())).await);
    }
    let status = calls.into_iter().find_map(Result::err).expect("a refusal");
    refused_for_want_of_room(&status, "3 calls a second");
}
