//! `edge-node audit`: what each cut gives away.

use clap::Args;
use cleave_shared::config::Config;

use crate::audit;

#[derive(Args)]
pub struct AuditArgs {
    /// Split points such as 1,4 [default: all but 0 whose stages this node has]
    #[arg(long, value_name = "POINTS", value_delimiter = ',')]
    split_points: Vec<usize>,
    /// Samples that the attacker learns from at most, and is measured on at most
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    samples: u64,
    /// Epochs of the attacker's training
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// The run whose weights and data are meant [default: what is deployed, else the configuration]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub fn audit(config: &Config, args: AuditArgs) -> Result<(), String> {
    let AuditArgs { split_points, samples, epochs, run, json } = args;
    let options = audit::Options { split_points, samples: samples as usize, epochs, run };
    let audit = audit::audit(config, &options, |line| eprintln!("{line}"))?;
    let written = audit.save()?;
    match json {
        true => print!("{}", audit.report.json()),
        false => println!("{}wrote {written}", audit.report.render()),
    }
    Ok(())
}
