//! Commands that choose the cut.

use std::path::{Path, PathBuf};

use clap::Args;
use cleave_shared::{checkpoint::write_atomic, config::Config, profile::Request};

use crate::{
    plan::{self, Graph},
    profile,
};

/// What a request of the profile and of the plan is.
#[derive(Args)]
struct Sizes {
    /// Samples of a request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Extent of what varies, such as the length of a sequence [default: 128, or the largest]
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    length: u32,
    /// Passes that are counted
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

impl Sizes {
    fn request(&self, training: bool) -> Request {
        let Self { batch, length, rounds } = *self;
        let [batch, length, rounds] = [batch, length, rounds].map(|n| n as usize);
        Request { batch, length, rounds, training }
    }
}

#[derive(Args)]
pub struct ProfileArgs {
    #[command(flatten)]
    sizes: Sizes,
    /// Measures forward and backward passes of training as well
    #[arg(long)]
    training: bool,
    /// Codecs to measure at each cut, comma-separated [default: those that [plan] may choose]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    codecs: Vec<String>,
    /// Counts right answers through each codec at each cut, on the validation part of the data
    #[arg(long)]
    accuracy: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct PlanArgs {
    #[command(flatten)]
    sizes: Sizes,
    /// Plans a training step of --batch samples: split point, codec and micro-batches
    #[arg(long, conflicts_with_all = ["measure", "svg"])]
    training: bool,
    /// Sends so many real requests for each choice, and shows them beside the predictions
    #[arg(long, value_name = "REQUESTS", default_value_t = 0)]
    measure: u32,
    /// Writes the plan as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Plans a model that is no chain, from a JSON file: nodes with edge_ms and cloud_ms, tensors with
    /// from, to and uplink_ms, and round_trip_ms
    #[arg(long, value_name = "FILE", conflicts_with_all = ["training", "measure", "svg"])]
    graph: Option<PathBuf>,
}

pub async fn profile(config: &Config, args: ProfileArgs) -> Result<(), String> {
    let request = args.sizes.request(args.training);
    let ProfileArgs { codecs, accuracy, json, .. } = args;
    let options = profile::Options { request, codecs, accuracy, quiet: false };
    let (path, measured) = profile::profile(config, &options).await?;
    match json {
        true => println!("{}", serde_json::to_string_pretty(&measured).expect("plain data")),
        false => print!("{}", profile::render(&measured)),
    }
    eprintln!("kept in {}", path.display());
    Ok(())
}

pub async fn plan(config: &Config, args: PlanArgs) -> Result<(), String> {
    if let Some(file) = &args.graph {
        return plan_graph(file, args.json);
    }
    if args.training {
        return plan_training(config, &args).await;
    }
    let request = args.sizes.request(false);
    let explained = plan::explained(config, request, args.measure as usize).await?;
    if let Some(file) = &args.svg {
        let picture = plan::svg(&explained.title, &explained.rows, plan::reach(&explained.rows));
        write_atomic(file, picture.as_bytes()).map_err(|e| e.to_string())?;
    }
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&explained.rows).expect("plain data")),
        false => print!("{}", plan::render(&explained.title, &explained.rows)),
    }
    explained.problem.map_or(Ok(()), Err)
}

async fn plan_training(config: &Config, args: &PlanArgs) -> Result<(), String> {
    let request = args.sizes.request(true);
    let grounds = plan::grounds(config, request, false).await?;
    let steps = plan::plan_step(&grounds.measured, &grounds.network, None);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&steps).expect("plain data"));
        return Ok(());
    }
    println!("a step of {} samples across {}\n", args.sizes.batch, config.link.profile);
    println!("  cut  codec        micro-batches   step ms");
    for (place, step) in steps.iter().enumerate() {
        let mark = if place == 0 { '*' } else { ' ' };
        let (split, codec, parts, ms) = (step.split, &step.codec, step.micro_batches, step.step_ms);
        println!("{mark} {split:>3}  {codec:<12} {parts:>13}  {ms:>8.1}");
    }
    println!("\n* chosen");
    Ok(())
}

fn plan_graph(file: &Path, json: bool) -> Result<(), String> {
    let refuse = |problem: String| format!("{}: {problem}", file.display());
    let bytes = std::fs::read(file).map_err(|e| refuse(e.to_string()))?;
    let graph: Graph = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
    graph.check().map_err(refuse)?;
    let found = graph.partition();
    if json {
        println!("{}", serde_json::to_string_pretty(&found).expect("plain data"));
        return Ok(());
    }
    for (node, &here) in graph.nodes.iter().zip(&found.on_edge) {
        println!("{:<5}  {}", if here { "edge" } else { "cloud" }, node.name);
    }
    println!("\n{:.3} ms", found.total_ms);
    Ok(())
}
