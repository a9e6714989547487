//! Closed-loop load for benchmarks. `benches/throughput` runs this and writes the report.
//!
//! ```text
//! load clients --port PORT              clients of an edge, ours or another: the open protocol
//! load in-process --config FILE         the unsplit model, by itself in this process
//! load edges --config FILE --port PORT  edges of a cloud: the split protocol
//! ```
//!
//! All three ask alike and count alike ([`closed_loop`]), so that what they print can be compared:
//! one line of JSON with answers a second and latencies.

mod clients;
mod closed_loop;
mod edges;
mod in_process;
mod sample;
mod starting_model;

use std::process::ExitCode;

use clap::Parser;

/// Asks again as soon as it is answered, many times at once, and counts
#[derive(Parser)]
#[command(name = "load")]
enum Load {
    /// Clients of an edge, over the Open Inference Protocol
    Clients(clients::ClientArgs),
    /// The unsplit model in this process, without a network
    InProcess(in_process::InProcessArgs),
    /// Edges of a cloud, over the split protocol
    Edges(edges::EdgeArgs),
}

// One thread asks, however many callers there are: it leaves most of the cores to whoever answers.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Load::parse() {
        Load::Clients(args) => clients::measure(args).await,
        Load::InProcess(args) => in_process::measure(args).await,
        Load::Edges(args) => edges::measure(args).await,
    };
    match outcome {
        Ok(summary) => {
            println!("{}", summary.json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
