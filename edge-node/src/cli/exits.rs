//! `edge-node exits`: early exits of the head.

use clap::{Args, Subcommand};
use cleave_shared::config::Config;

use super::{examples, steps::PartName};
use crate::exits;

#[derive(Subcommand)]
pub enum ExitsCommand {
    /// Trains exits behind stages of a trained model, which stays as it is
    #[command(after_help = examples::EXITS_TRAIN)]
    Train(TrainArgs),
    /// Shows accuracy, and how many samples leave, at each threshold
    #[command(after_help = examples::EXITS_REPORT)]
    Report(ReportArgs),
}

#[derive(Args)]
pub struct TrainArgs {
    /// Stages by name or number, such as pool1,4
    #[arg(long, value_name = "STAGES", value_delimiter = ',', required = true)]
    after: Vec<String>,
    /// The run whose weights and data are meant [default: what is deployed, else the configuration]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ReportArgs {
    /// The run whose weights and data are meant [default: what is deployed, else the configuration]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = PartName::Validation)]
    part: PartName,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
}

pub async fn exits(config: &Config, command: ExitsCommand) -> Result<(), String> {
    match command {
        ExitsCommand::Train(TrainArgs { after, run, epochs, json }) => {
            let options = exits::Options { run: run.clone(), after, epochs };
            for file in exits::train(config, &options).await? {
                match json {
                    true => eprintln!("wrote {file}"),
                    false => println!("wrote {file}"),
                }
            }
            let part = PartName::Validation.part();
            let report = exits::report(config, run.as_deref(), part).await?;
            print!("{}", if json { report.json() } else { report.render() });
        }
        ExitsCommand::Report(ReportArgs { run, part, json }) => {
            let report = exits::report(config, run.as_deref(), part.part()).await?;
            print!("{}", if json { report.json() } else { report.render() });
        }
    }
    Ok(())
}
