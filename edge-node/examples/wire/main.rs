//! Bytes there and back over loopback, in four ways. `benches/wire` runs this and writes a report.
//!
//! ```text
//! wire serve-tcp | serve-tonic | serve-split    echoes; prints its port, runs until it is killed
//! wire measure tcp|tonic|split --port P --bytes N --count K [--warm-up W]    against those
//! wire measure cloud --port P --count K [--warm-up W]                        against a cloud node
//! ```
//!
//! A measurement is a line of JSON: the time of each round trip in µs, and the bytes of the message
//! that asked. The far end is a process of its own, as it is where edge and cloud are two.

mod bare;
mod edge;
mod split;
mod tcp;
mod trips;

use std::{net::Ipv4Addr, process::ExitCode};

use clap::{Args, Parser, ValueEnum};
use cleave_shared::memory::{self, Allocator};
use serde_json::json;
use tokio::net::TcpListener;

use self::trips::RoundTrip;

/// As the nodes have it. The others' large messages come from it as well, which is no loss to them.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Sends bytes there and back over loopback, and says how long it took
#[derive(Parser)]
#[command(name = "wire")]
enum Command {
    /// Echoes over a socket and nothing else
    ServeTcp,
    /// Echoes with tonic as it is
    ServeTonic,
    /// Echoes activations, as a cloud whose tail changes nothing
    ServeSplit,
    /// Prints the times of round trips
    Measure(Measurement),
}

#[derive(Args)]
struct Measurement {
    kind: Kind,
    /// Of the far end, on this machine
    #[arg(long)]
    port: u16,
    /// Of one message or tensor; a cloud's tail takes what it takes
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Round trips, one after the other
    #[arg(long)]
    count: usize,
    /// Round trips before those; the first of all connects
    #[arg(long, default_value_t = 0)]
    warm_up: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Tcp,
    Tonic,
    Split,
    Cloud,
}

impl Command {
    /// Whether this is what a node does.
    fn is_of_cleave(&self) -> bool {
        match self {
            Command::ServeTcp | Command::ServeTonic => false,
            Command::ServeSplit => true,
            Command::Measure(asked) => matches!(asked.kind, Kind::Split | Kind::Cloud),
        }
    }
}

fn main() -> ExitCode {
    let command = Command::parse();
    if command.is_of_cleave() {
        // First of all, as in the nodes; the others have the allocator as it comes.
        memory::keep_little();
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wire: {error}");
            ExitCode::FAILURE
        }
    }
}

/// On a runtime as the nodes have it.
#[tokio::main]
async fn run(command: Command) -> Result<(), String> {
    match command {
        Command::ServeTcp => tcp::serve(listen().await?).await,
        Command::ServeTonic => bare::serve(listen().await?).await,
        Command::ServeSplit => split::serve(listen().await?).await,
        Command::Measure(asked) => measure(&asked).await,
    }
}

/// A free port of this machine, which is printed for whoever started this.
async fn listen() -> Result<TcpListener, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|e| format!("cannot listen on this machine: {e}"))?;
    let address = listener.local_addr().map_err(|e| format!("the socket has no address: {e}"))?;
    println!("{}", address.port());
    Ok(listener)
}

async fn measure(asked: &Measurement) -> Result<(), String> {
    let Measurement { port, bytes, .. } = *asked;
    match asked.kind {
        Kind::Tcp => report(tcp::Socket::connect(port, bytes)?, asked).await,
        Kind::Tonic => report(bare::Client::connect(port, bytes).await?, asked).await,
        Kind::Split => report(edge::Edge::of_echo(port, bytes)?, asked).await,
        Kind::Cloud => report(edge::Edge::of_cloud(port).await?, asked).await,
    }
}

async fn report(way: impl RoundTrip + Send + 'static, asked: &Measurement) -> Result<(), String> {
    let request_bytes = way.request_bytes();
    // On a worker of the runtime, where a node's requests are too.
    let timed = tokio::spawn(trips::time(way, asked.warm_up, asked.count)).await;
    let us = timed.map_err(|e| format!("the measurement broke off: {e}"))??;
    println!("{}", json!({ "us": us, "request_bytes": request_bytes }));
    Ok(())
}
