//! Commands that make models smaller, and adapters to and from their ecosystem.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cleave_shared::config::Config;

use super::examples;
use crate::optimize::{adapter, prune, quantize};

#[derive(Args)]
pub struct QuantizeArgs {
    /// Which weights: seed:N, file:FINGERPRINT or run:ID:STEP [default: what is deployed]
    #[arg(long, value_name = "ID")]
    weights: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct PruneArgs {
    /// What goes: the smallest weights, which become zero, or whole filters of convolutions
    #[arg(long, value_enum, default_value = "magnitude")]
    method: PruneMethod,
    /// Share that goes, 0 to less than 1
    #[arg(long, default_value_t = 0.5)]
    amount: f64,
    /// Trains the pruned model over the split for this many epochs
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    fine_tune: Option<u64>,
    /// Which weights: seed:N, file:FINGERPRINT or run:ID:STEP [default: what is deployed]
    #[arg(long, value_name = "ID")]
    weights: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PruneMethod {
    Magnitude,
    Filter,
}

#[derive(Subcommand)]
pub enum AdapterCommand {
    /// Writes the adapters of a run: adapter_config.json and adapter_model.safetensors
    #[command(after_help = examples::ADAPTER_EXPORT)]
    Export {
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// Which weights: run:ID:STEP [default: what is deployed]
        #[arg(long, value_name = "ID")]
        weights: Option<String>,
        /// What the class that loads them puts before the names of layers, such as transformer.
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
    },
    /// Makes a run of a folder's adapters and deploys it
    #[command(after_help = examples::ADAPTER_IMPORT)]
    Import {
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Run id: letters, digits, '-' and '_'
        #[arg(long, value_name = "ID")]
        run: String,
    },
}

pub async fn quantize(config: &Config, args: QuantizeArgs) -> Result<(), String> {
    let QuantizeArgs { weights, json } = args;
    quantize::quantize(config, &quantize::Options { weights, json }).await
}

pub async fn prune(config: &Config, args: PruneArgs) -> Result<(), String> {
    let PruneArgs { method, amount, fine_tune, weights, json } = args;
    let method = match method {
        PruneMethod::Magnitude => prune::Method::Magnitude,
        PruneMethod::Filter => prune::Method::Filter,
    };
    let options = prune::Options { method, amount, weights, fine_tune, json };
    prune::prune(config, &options).await
}

pub async fn adapter(config: &Config, command: AdapterCommand) -> Result<(), String> {
    match command {
        AdapterCommand::Export { out, weights, prefix } => {
            adapter::export(config, weights.as_deref(), out, prefix).await
        }
        AdapterCommand::Import { from, run } => adapter::import(config, from, run).await,
    }
}
