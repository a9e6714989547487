//! `edge-node bottleneck`: learned codecs.

use clap::{Args, Subcommand};
use cleave_shared::config::Config;

use super::examples;
use crate::{bottleneck, demo};

#[derive(Subcommand)]
pub enum BottleneckCommand {
    /// Trains an encoder here and a decoder in the cloud for a trained model, which stays as it is
    #[command(after_help = examples::BOTTLENECK)]
    Train(TrainArgs),
}

#[derive(Args)]
pub struct TrainArgs {
    /// The run whose model it is for [default: what is deployed, else the configuration]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The bottleneck's own run id [default: run-SECONDS]; it is served as the codec bottleneck:ID
    #[arg(long, value_name = "ID")]
    name: Option<String>,
    /// Goes on with the bottleneck of this name
    #[arg(long, requires = "name")]
    resume: bool,
    /// Split point [default: that of the model's run]
    #[arg(long, value_name = "SPLIT")]
    at: Option<usize>,
    /// Channels of the code (of a map), or its features; a byte each
    #[arg(long, value_name = "W")]
    width: usize,
    /// Height and width of a map's patch of which a place of the code is made
    #[arg(long, value_name = "S", default_value_t = 1)]
    stride: usize,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    epochs: u64,
    /// Adam's; it falls to 0 as a cosine
    #[arg(long, default_value_t = 0.003)]
    learning_rate: f64,
    /// Prints what it came to as JSON
    #[arg(long)]
    json: bool,
}

pub async fn bottleneck(config: &Config, command: BottleneckCommand) -> Result<(), String> {
    let BottleneckCommand::Train(args) = command;
    let TrainArgs { run, name, resume, at, width, stride, epochs, learning_rate, json } = args;
    let options =
        bottleneck::Options { run, name, resume, at, width, stride, epochs, learning_rate };
    let bottleneck::Trained { outcome, bytes: [from, to] } =
        bottleneck::train(config, &options).await?;
    if json {
        let mut told = outcome.json();
        told["activation_bytes"] = from.into();
        told["code_bytes"] = to.into();
        println!("{told}");
        return Ok(());
    }
    println!("{}", demo::summary(&outcome));
    let run = &outcome.run;
    println!(
        "right is here what the uncut model says; a sample's activation has {from} bytes, its code \
         {to}; served with codec.activation = \"bottleneck:{run}\""
    );
    Ok(())
}
