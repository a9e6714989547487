//! The `cloud-node` command.

mod examples;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use cleave_shared::{
    config::{Config, ConfigArgs},
    doctor, health,
    manual::{self, ManualCommand},
    memory, telemetry,
};

/// Runs the tail of a split model for edge nodes.
#[derive(Parser)]
#[command(name = "cloud-node", version)]
#[command(after_help = manual::explained(examples::ALL, manual::EXIT_CODES))]
#[command(mut_subcommands(manual::with_examples("cloud-node")))]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or Ctrl-C
    #[command(after_help = examples::SERVE)]
    Serve,
    /// Exits with 0 if the node at `cloud.listen` is healthy
    #[command(after_help = examples::HEALTH)]
    Health,
    /// Looks at configuration, model, weights, ports and certificates, and says what to do
    #[command(after_help = manual::explained(examples::DOCTOR, manual::DOCTOR))]
    Doctor {
        /// Prints a JSON list
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Manual(ManualCommand),
}

/// Runs the command line; exit code 1 for a failure, 2 for a bad command or configuration.
pub fn main() -> ExitCode {
    memory::keep_little();
    let cli = Cli::parse();
    match cli.command {
        Command::Doctor { json } => return ended(examined(&cli.config, json)),
        Command::Manual(command) => return ended(command.run(Cli::command())),
        Command::Serve | Command::Health => {}
    }
    let config = match cli.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("cloud-node: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::init(config.log.format, &config.log.level);
    let health = matches!(cli.command, Command::Health);
    ended(run(health, config, cli.config))
}

fn ended(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloud-node: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong is what the report says, so that nothing is logged.
#[tokio::main]
async fn examined(args: &ConfigArgs, json: bool) -> Result<(), String> {
    doctor::report(&crate::doctor::examine(args).await, json)
}

/// Serves, or asks for the `health` of one that does.
#[tokio::main]
async fn run(health: bool, config: Config, args: ConfigArgs) -> Result<(), String> {
    if !health {
        tokio::spawn(args.follow_log_level());
        return crate::serve(config).await;
    }
    match config.security.files() {
        Some(files) => health::check_secure(config.cloud.listen, files).await,
        None => health::check(config.cloud.listen).await,
    }
}
