//! Clients that begin and do not go on: their connections are closed, and others are served meanwhile.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::Besieged;

/// Connections of each kind to each port.
const CONNECTIONS: usize = 40;
/// Longer than a node waits for first words, and than for a request's head.
const PATIENCE: Duration = Duration::from_secs(50);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NEARLY_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r";
const HEAD: &[u8] = b"GET /v2/health/live HTTP/1.1\r\nX: ";

/// Connects, sends the words, one byte a second more, and waits to be left.
async fn linger(port: u16, words: &'static [u8], trickle: u8) -> (Duration, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the node listens");
    stream.write_all(words).await.expect("a new connection takes some bytes");
    let (begin, mut answer) = (Instant::now(), Vec::new());
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return (begin.elapsed(), answer),
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
            },
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if trickle != 0 && stream.write_all(&[trickle]).await.is_err() {
                    return (begin.elapsed(), answer);
                }
            }
        }
        assert!(begin.elapsed() < PATIENCE, "port {port} still listens to {words:?}");
    }
}

#[tokio::test]
async fn who_does_not_go_on_is_left() {
    let besieged = Besieged::new().await;
    let nodes = &besieged.nodes;
    let mut all = JoinSet::new();
    for port in [nodes.cloud_port, nodes.grpc_port, nodes.http_port] {
        // Says nothing; says nonsense, slowly; stops in the middle; goes on, slowly, or stops behind it.
        let kinds: [(&'static [u8], u8); 4] = match port == nodes.http_port {
            true => [(b"", 0), (b"G", b'G'), (HEAD, 0), (HEAD, b'y')],
            false => [(b"", 0), (b"G", b'G'), (NEARLY_PREFACE, 0), (PREFACE, 0)],
        };
        for (words, trickle) in kinds {
            for _ in 0..CONNECTIONS {
                all.spawn(async move { (port, linger(port, words, trickle).await) });
            }
        }
    }
    for _ in 0..20 {
        besieged.stands().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while let Some(left) = all.join_next().await {
        left.expect("it is left");
    }
    besieged.stands().await;
    besieged.said_no_panic();
}
