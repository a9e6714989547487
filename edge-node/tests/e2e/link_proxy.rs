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
fn an_unknown_profile_is_refused_with_the_known_ones() {
    let output = link(1, 2, "6g").stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("5g-midband") && text.contains("'6g'"), "{text}");
}
