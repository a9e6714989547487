//! The `edge-node` command.

use std::{net::SocketAddr, process::ExitCode};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};
use cleave_shared::{
    config::{Config, ConfigArgs},
    health,
    link::Profile,
    telemetry::{self, LogFormat},
};

use crate::{demo, evaluate::EdgeClient, link_proxy, stack, train};

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
    #[command(flatten)]
    Node(NodeCommand),
    /// Puts the simulated link in front of any program: a TCP proxy
    Link(LinkArgs),
}

/// Commands that read the configuration.
#[derive(Subcommand)]
enum NodeCommand {
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

#[derive(Args)]
struct LinkArgs {
    /// Where to accept connections
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where to forward them; bytes towards it are uplink
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Which network to simulate
    #[arg(long, value_parser = PossibleValuesParser::new(Profile::NAMES))]
    profile: String,
    /// Seed of the jitter
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the command line; exit code 1 for a failure, 2 for a bad command or configuration.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = match cli.command {
        Command::Link(args) => {
            telemetry::init(LogFormat::Text);
            return ended(link(args));
        }
        Command::Node(command) => command,
    };
    match cli.config.load() {
        Ok(config) => {
            telemetry::init(config.log.format);
            ended(run(command, config, cli.config))
        }
        Err(error) => {
            eprintln!("edge-node: {error}");
            ExitCode::from(2)
        }
    }
}

fn ended(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edge-node: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: NodeCommand, config: Config, args: ConfigArgs) -> Result<(), String> {
    match command {
        NodeCommand::Serve => stack::serve(config, args).await,
        NodeCommand::Train(TrainArgs { run, resume, no_deploy }) => {
            let options = train::Options { run, resume, no_deploy };
            let outcome = train::train(&config, &options).await?;
            println!("{}", demo::summary(&outcome));
            Ok(())
        }
        NodeCommand::Evaluate { edge } => {
            let edge = edge.unwrap_or_else(|| format!("http://{}", config.edge.grpc_listen));
            let mut client = EdgeClient::connect(&edge, &config.edge.model_name).await?;
            print!("{}", client.evaluate(&config).await?.render(&config));
            Ok(())
        }
        NodeCommand::Demo { edge, exit } => {
            demo::demo(&config, &args, &demo::Options { edge, exit }).await
        }
        NodeCommand::Health => health::check(config.edge.grpc_listen).await,
        NodeCommand::Cloud => cloud_node::serve(config).await,
    }
}

#[tokio::main]
async fn link(args: LinkArgs) -> Result<(), String> {
    let LinkArgs { listen, to, profile, seed } = args;
    let profile = Profile::builtin(&profile).ok_or("--profile: unknown")?;
    link_proxy::run(link_proxy::Options { listen, to, profile, seed }).await
}
