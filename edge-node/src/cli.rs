//! The `edge-node` command.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use cleave_shared::{
    config::{Config, ConfigArgs},
    health, telemetry,
};

use crate::{demo, evaluate::EdgeClient, stack, train};

/// Runs the head of a split model: serves it, trains it, measures it.
#[derive(Parser)]
#[command(name = "edge-node", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves inference (Open Inference Protocol v2) until SIGTERM or Ctrl-C
    Serve,
    /// Trains the model together with the cloud, and deploys the result
    Train(TrainArgs),
    /// Sends the held-out samples to a running edge; prints accuracy and latency
    Evaluate {
        /// The edge's gRPC address, http://HOST:PORT [default: edge.grpc_listen]
        #[arg(long, value_name = "URL")]
        edge: Option<String>,
    },
    /// Starts both nodes, trains across the link, then asks the edge
    Demo {
        /// Use the nodes that run already: this edge, and the cloud at --cloud
        #[arg(long, value_name = "URL")]
        edge: Option<String>,
        /// End after the report instead of serving on
        #[arg(long)]
        exit: bool,
    },
    /// Exits with 0 if the node at `edge.grpc_listen` is healthy
    Health,
    /// The cloud node, for the demo
    #[command(hide = true)]
    Cloud,
}

#[derive(Args)]
struct TrainArgs {
    /// Run id: letters, digits, '-' and '_' [default: run-SECONDS]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Continue a run, the newest one without --run
    #[arg(long)]
    resume: bool,
    /// Leave what is deployed as it is
    #[arg(long)]
    no_deploy: bool,
}

/// Runs the command line; exit code 1 for a failure, 2 for a bad command or configuration.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match cli.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("edge-node: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::init(config.log.format);
    match run(cli.command, config, cli.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edge-node: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command, config: Config, args: ConfigArgs) -> Result<(), String> {
    match command {
        Command::Serve => stack::serve(config, args).await,
        Command::Train(TrainArgs { run, resume, no_deploy }) => {
            let options = train::Options { run, resume, no_deploy };
            let outcome = train::train(&config, &options).await?;
            println!("{}", demo::summary(&outcome));
            Ok(())
        }
        Command::Evaluate { edge } => {
            let edge = edge.unwrap_or_else(|| format!("http://{}", config.edge.grpc_listen));
            let mut client = EdgeClient::connect(&edge, &config.edge.model_name).await?;
            print!("{}", client.evaluate(&config).await?.render(&config));
            Ok(())
        }
        Command::Demo { edge, exit } => {
            demo::demo(&config, &args, &demo::Options { edge, exit }).await
        }
        Command::Health => health::check(config.edge.grpc_listen).await,
        Command::Cloud => cloud_node::serve(config).await,
    }
}
