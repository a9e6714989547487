//! What is below all the others: a socket. A message is its length and its bytes, written at once;
//! the far end reads all of it before it answers, as a call does. Blocking, with buffers that are
//! used again: less than this cannot be done.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use tokio::net::TcpListener;

use super::trips::{RoundTrip, compare, content};

/// Bytes of a message's length, little-endian, in front of it.
const HEADER: usize = 8;
/// Longest message that is read, bytes.
const LONGEST: usize = 1 << 30;

/// Echoes, each connection on a thread of its own.
pub async fn serve(listener: TcpListener) -> Result<(), String> {
    loop {
        let (stream, _) = listener.accept().await.map_err(|e| format!("no connection: {e}"))?;
        let stream = blocking(stream).map_err(|e| format!("the connection is of no use: {e}"))?;
        // Ends with an error when the other end has what it wanted, and leaves.
        std::thread::spawn(move || echo(stream));
    }
}

fn blocking(stream: tokio::net::TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut message = Vec::new();
    loop {
        read(&mut stream, &mut message)?;
        stream.write_all(&message)?;
    }
}

/// Replaces `message` with the next one, its header included.
fn read(stream: &mut TcpStream, message: &mut Vec<u8>) -> io::Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let length = usize::try_from(u64::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(io::Error::other(format!("a message of {length} bytes was announced")));
    }
    message.resize(HEADER + length, 0);
    message[..HEADER].copy_from_slice(&header);
    stream.read_exact(&mut message[HEADER..])
}

/// The near end.
pub struct Socket {
    stream: TcpStream,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Socket {
    pub fn connect(port: u16, bytes: usize) -> Result<Self, String> {
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let stream = connected.map_err(|e| format!("port {port}: {e}"))?;
        stream.set_nodelay(true).map_err(|e| format!("port {port}: {e}"))?;
        let mut sent = (bytes as u64).to_le_bytes().to_vec();
        sent.extend_from_slice(&content(bytes));
        Ok(Self { stream, sent, received: Vec::new() })
    }
}

impl RoundTrip for Socket {
    fn request_bytes(&self) -> usize {
        self.sent.len()
    }

    async fn trip(&mut self) -> Result<(), String> {
        self.stream.write_all(&self.sent).map_err(|e| format!("not sent over TCP: {e}"))?;
        read(&mut self.stream, &mut self.received).map_err(|e| format!("no answer over TCP: {e}"))
    }

    fn check(&mut self, whole: bool) -> Result<(), String> {
        compare(&self.received, &self.sent, whole)
    }
}
