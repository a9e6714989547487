//! `edge-node link`: the simulated link between two programs that know nothing of it.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::nodes::{Process, eventually, free_ports};

fn link(listen: u16, to: u16, profile: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-node"));
    command.args(["link", "--profile", profile]);
    command.args(["--listen", &format!("127.0.0.1:{listen}")]);
    command.args(["--to", &format!("127.0.0.1:{to}")]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// Echoes each connection until its end.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

async fn connect(port: u16) -> TcpStream {
    let connect = async || TcpStream::connect(("127.0.0.1", port)).await.ok();
    eventually("the proxy", connect).await.expect("the proxy listens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_unchanged_and_take_their_time() {
    let ([port], to) = (free_ports(), echo().await);
    let mut proxy = Process(link(port, to, "lte").spawn().unwrap());
    let mut stream = connect(port).await;
    stream.set_nodelay(true).unwrap();
    let mut trips = Vec::new();
    for i in 0..21 {
        let begin = Instant::now();
        stream.write_u8(i).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), i);
        trips.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    trips.sort_by(f64::total_cmp);
    // 50 ms on average, never less; how exactly is for shared/tests/link.rs.
    assert!(trips[10] > 45.0, "{trips:?}");

    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let (mut from, mut to) = stream.into_split();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        to.write_all(&copy).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    writing.await.unwrap();
    assert!(received == sent, "{} bytes came back", received.len());
    assert!(proxy.terminate().success());
}

#[tokio::test]
async fn a_target_that_is_not_there_ends_the_connection_not_the_proxy() {
    let [port, nowhere] = free_ports();
    let mut proxy = Process(link(port, nowhere, "wifi").spawn().unwrap());
    for _ in 0..2 {
        let mut stream = connect(port).await;
        assert!(stream.read_u8().await.is_err(), "nobody is there to answer");
    }
    assert!(proxy.0.try_wait().unwrap().is_none(), "the proxy is still up");
}

#[test]
fn a_bad_profile_is_refused_with_what_to_do() {
    let refused = |profile: &str| {
        let output = link(1, 2, profile).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = refused("6g");
    assert!(unknown.contains("\"6g\": unknown profile; known: 5g-lowband"), "{unknown}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.toml");
    let text = "description = \"d\"\nsources = [\"s\"]\n[uplink]\nrate_mbps = -3\n";
    std::fs::write(&file, text).unwrap();
    let bad = refused(file.to_str().unwrap());
    assert!(bad.contains("own.toml:4: uplink.rate_mbps: -3 is out of range"), "{bad}");
    assert_eq!(bad.lines().count(), 1, "{bad}");
}

/// The body of an HTTP answer; the whole conversation is one connection.
pub async fn http(port: u16, method: &str, path: &str, body: &str) -> String {
    let mut stream = connect(port).await;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ping_ms(stream: &mut TcpStream) -> f64 {
    let begin = Instant::now();
    stream.write_u8(7).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 7);
    begin.elapsed().as_secs_f64() * 1e3
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_switch_while_it_runs_and_metrics_and_picture_show_it() {
    let ([port, admin], to) = (free_ports(), echo().await);
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.toml");
    let write = |delay_ms: u32| {
        let text =
            format!("description = \"d\"\nsources = [\"s\"]\n[uplink]\ndelay_ms = {delay_ms}\n");
        std::fs::write(folder.path().join("new"), text).unwrap();
        std::fs::rename(folder.path().join("new"), &own).unwrap();
    };
    write(100);
    let picture = folder.path().join("link.svg");
    let mut command = link(port, to, "own");
    command.arg("--profiles").arg(folder.path()).arg("--plot").arg(&picture);
    command.args(["--admin", &format!("127.0.0.1:{admin}")]);
    let mut proxy = Process(command.spawn().unwrap());
    let mut stream = connect(port).await;
    stream.set_nodelay(true).unwrap();
    assert!(ping_ms(&mut stream).await >= 99.0);

    // By the file,
    write(2);
    for tries in 0.. {
        if ping_ms(&mut stream).await < 50.0 {
            break;
        }
        assert!(tries < 100, "the file's change has no effect");
    }
    // by a call,
    let answer = http(admin, "PUT", "/profile", "lte").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(ping_ms(&mut stream).await > 20.0);
    // but not to a file that the caller names, or to nothing.
    for bad in ["6g", "/etc/passwd", "../own"] {
        let answer = http(admin, "PUT", "/profile", bad).await;
        assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("root:"), "{answer}");
    }
    let shown = http(admin, "GET", "/profile", "").await;
    assert!(shown.contains("\"profile\":\"lte\"") && shown.contains("\"own\""), "{shown}");

    let metrics = http(admin, "GET", "/metrics", "").await;
    for name in [
        "delivered_bytes_total",
        "queue_bytes",
        "harq_retransmissions_total",
        "outage_microseconds_total",
        "queueing_microseconds_total",
    ] {
        let line = format!("cleave_link_{name}{{direction=\"uplink\",edge=\"all\"}}");
        assert!(metrics.contains(&line), "{name}: {metrics}");
    }
    assert!(!metrics.contains("delivered_bytes_total{direction=\"uplink\",edge=\"all\"} 0"));
    assert!(proxy.terminate().success());
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("<polyline"), "{drawn}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_at_different_addresses_share_a_cell() {
    let ([port, admin], to) = (free_ports(), echo().await);
    let mut command = link(port, to, "wifi");
    command.args(["--cell", "round-robin", "--admin", &format!("127.0.0.1:{admin}")]);
    let _proxy = Process(command.spawn().unwrap());
    connect(port).await;
    for edge in ["127.0.0.2", "127.0.0.3"] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{edge}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        ping_ms(&mut stream).await;
    }
    let metrics = http(admin, "GET", "/metrics", "").await;
    for edge in ["127.0.0.2", "127.0.0.3"] {
        let line = format!("cleave_link_connections_total{{edge=\"{edge}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn a_saturated_link_is_drawn_without_connections() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("midband.svg");
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-node"));
    command.args(["link", "--profile", "5g-midband", "--simulate", "30", "--plot"]).arg(&file);
    assert!(command.status().unwrap().success());
    let drawn = std::fs::read_to_string(&file).unwrap();
    assert!(drawn.matches("<polyline").count() >= 6, "{drawn}");
}

#[test]
fn a_trace_is_made_from_its_seed() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: &str| {
        let file = folder.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-node"));
        command.args(["trace", "--scenario", "midband-walk", "--seconds", "5", "--seed", seed]);
        assert!(command.arg("--out").arg(&file).status().unwrap().success());
        std::fs::read_to_string(&file).unwrap()
    };
    let first = make("a.csv", "1");
    assert!(first.starts_with("# edge-node trace --scenario midband-walk --seed 1"), "{first}");
    assert_eq!(first, make("b.csv", "1"));
    assert_ne!(first, make("c.csv", "2"));
}
