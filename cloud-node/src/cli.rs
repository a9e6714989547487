//! The `cloud-node` command.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cleave_shared::{
    config::{Config, ConfigArgs},
    health, memory, telemetry,
};

/// Runs the tail of a split model for edge nodes.
#[derive(Parser)]
#[command(name = "cloud-node", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or Ctrl-C
    Serve,
    /// Exits with 0 if the node at `cloud.listen` is healthy
    Health,
}

/// Runs the command line; exit code 1 for a failure, 2 for a bad command or configuration.
pub fn main() -> ExitCode {
    memory::keep_little();
    let cli = Cli::parse();
    let config = match cli.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("cloud-node: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::init(config.log.format);
    match run(cli.command, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloud-node: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command, config: Config) -> Result<(), String> {
    match command {
        Command::Serve => crate::serve(config).await,
        Command::Health => match config.security.files() {
            Some(files) => health::check_secure(config.cloud.listen, files).await,
            None => health::check(config.cloud.listen).await,
        },
    }
}
