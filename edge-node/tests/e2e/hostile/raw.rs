//! Clients that send what they are told, whether or not it is a message.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

/// Who has not answered by then hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that are read of one answer.
const MOST_REPLIES: usize = 64;

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Sends these messages; the messages that come back, or why not.
pub async fn call(
    channel: &Channel,
    path: &'static str,
    messages: Vec<Bytes>,
) -> Result<Vec<Bytes>, Status> {
    let mut client = Grpc::new(channel.clone());
    let answer = async {
        client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let request = Request::new(tokio_stream::iter(messages));
        let path = PathAndQuery::from_static(path);
        let mut replies = client.streaming(request, path, Raw).await?.into_inner();
        let mut all = Vec::new();
        while let Some(reply) = replies.message().await? {
            all.push(reply);
            if all.len() == MOST_REPLIES {
                break;
            }
        }
        Ok(all)
    };
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("{path}: no answer"))
}

/// What came back of one HTTP request.
#[derive(Debug)]
pub enum Http {
    Answer {
        status: u16,
        body: String,
    },
    /// The connection was closed without an answer.
    Closed,
}

/// Sends these bytes, and no more after them.
pub async fn http(port: u16, bytes: &[u8]) -> Http {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the edge listens");
        // A server that has seen enough may close before it has all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
        panic!("no answer to {}", String::from_utf8_lossy(&bytes[..bytes.len().min(600)]))
    });
    let text = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Http::Closed };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Http::Answer { status: status.expect("a status line"), body: body.into() }
}
