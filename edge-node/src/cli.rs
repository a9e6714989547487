//! The `edge-node` command.

mod audit;
mod bottleneck;
mod certs;
mod examples;
mod exits;
mod generate;
mod infer;
mod link;
mod optimize;
mod plan;
mod report;
mod steps;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use cleave_shared::{
    config::{Config, ConfigArgs},
    health,
    manual::{self, ManualCommand},
    memory,
    model::{ModelSpec, named::model_by_name},
    telemetry::{self, LogFormat},
};

use self::{
    audit::AuditArgs,
    bottleneck::BottleneckCommand,
    certs::CertsArgs,
    exits::ExitsCommand,
    generate::GenerateArgs,
    infer::InferArgs,
    link::{LinkArgs, TraceArgs},
    optimize::{AdapterCommand, PruneArgs, QuantizeArgs},
    plan::{PlanArgs, ProfileArgs},
    report::ReportArgs,
    steps::{PrepareArgs, TrainArgs, TuneArgs, ValidateArgs},
};
use crate::{demo, deploy::deploy_run, evaluate::EdgeClient, inspect::inspect, stack};

/// Runs the head of a split model: serves it, trains it, measures it.
#[derive(Parser)]
#[command(name = "edge-node", version)]
#[command(after_help = manual::explained(examples::ALL, manual::EXIT_CODES))]
#[command(mut_subcommands(manual::with_examples("edge-node")))]
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
    /// Shows a model's stages: parameters, FLOPs, and the bytes that cross each cut
    #[command(after_help = examples::INSPECT)]
    Inspect {
        /// As JSON: an object whose `stages` and `cuts` are lists
        #[arg(long)]
        json: bool,
        /// Only prints the names that --model knows
        #[arg(long, conflicts_with = "json")]
        list: bool,
    },
    /// Puts the simulated link in front of any program: a TCP proxy
    #[command(after_help = examples::LINK)]
    Link(LinkArgs),
    /// Makes a trace of a mobile network's rates over time
    #[command(after_help = examples::TRACE)]
    Trace(TraceArgs),
    /// Makes a development CA, and certificates with which both nodes know each other
    #[command(after_help = examples::CERTS)]
    Certs(CertsArgs),
    /// Looks at configuration, model, weights, ports, certificates, clouds, clocks and link, and says what to do
    #[command(after_help = manual::explained(examples::DOCTOR, manual::DOCTOR))]
    Doctor {
        /// Prints a JSON list
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Manual(ManualCommand),
}

/// Commands that read the configuration.
#[derive(Subcommand)]
enum NodeCommand {
    /// Step 1: collects, cleans, normalises and splits the data of a run
    #[command(after_help = examples::PREPARE)]
    Prepare(PrepareArgs),
    /// Step 2: trains the model together with the cloud, and deploys the result
    #[command(after_help = examples::TRAIN)]
    Train(TrainArgs),
    /// Step 3: measures a trained run on a part of its data
    #[command(after_help = examples::VALIDATE)]
    Validate(ValidateArgs),
    /// Step 4: searches for good settings, several trials at once
    #[command(after_help = examples::TUNE)]
    Tune(TuneArgs),
    /// Step 5: serves inference (Open Inference Protocol v2) until SIGTERM or Ctrl-C
    #[command(after_help = examples::SERVE)]
    Serve {
        /// Deploys this run first
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
    /// Writes a run as one HTML page: its curves, and the timeline of a step
    #[command(after_help = examples::REPORT)]
    Report(ReportArgs),
    /// Continues a sequence of token ids together with the cloud, without a running edge
    #[command(after_help = examples::GENERATE)]
    Generate(GenerateArgs),
    /// Asks a running edge about files or texts; prints the answer and where the time went
    Infer(InferArgs),
    /// Sends the held-out samples to a running edge; prints accuracy and latency
    #[command(after_help = examples::EVALUATE)]
    Evaluate {
        /// The edge's gRPC address, http://HOST:PORT [default: edge.grpc_listen]
        #[arg(long, value_name = "URL")]
        edge: Option<String>,
        /// Prints the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Starts both nodes, trains across the link, then asks the edge
    #[command(after_help = examples::DEMO)]
    Demo {
        /// Use the nodes that run already: this edge, and the cloud at --cloud
        #[arg(long, value_name = "URL")]
        edge: Option<String>,
        /// End after the report instead of serving on
        #[arg(long)]
        exit: bool,
        /// Prints the report as one JSON object, all else on the standard error
        #[arg(long)]
        json: bool,
    },
    /// Measures the model with its weights in 8 and in 4 bits: size, latency, accuracy
    #[command(after_help = examples::QUANTIZE)]
    Quantize(QuantizeArgs),
    /// Makes a smaller model of the trained one, and fine-tunes it over the split
    #[command(after_help = examples::PRUNE)]
    Prune(PruneArgs),
    /// Measures each stage and codec on both nodes, for the planner
    #[command(after_help = examples::PROFILE)]
    Profile(ProfileArgs),
    /// Predicts the latency of each split point and codec, and chooses one
    #[command(after_help = examples::PLAN)]
    Plan(PlanArgs),
    /// Attacks what is sent: rebuilds inputs from the activations of each split point
    #[command(after_help = examples::AUDIT)]
    Audit(AuditArgs),
    /// Early exits, with which the edge answers alone
    #[command(subcommand, after_help = examples::EXITS)]
    Exits(ExitsCommand),
    /// A learned codec: an encoder here, a decoder in the cloud
    #[command(subcommand, after_help = examples::BOTTLENECK)]
    Bottleneck(BottleneckCommand),
    /// LoRA adapters to and from the folders of Hugging Face's PEFT
    #[command(subcommand, after_help = examples::ADAPTER)]
    Adapter(AdapterCommand),
    /// Exits with 0 if the node at `edge.grpc_listen` is healthy
    #[command(after_help = examples::HEALTH)]
    Health,
    /// The cloud node, for the demo
    #[command(hide = true)]
    Cloud,
}

/// Runs the command line; exit code 1 for a failure, 2 for a bad command or configuration.
pub fn main() -> ExitCode {
    memory::keep_little();
    let cli = Cli::parse();
    let command = match cli.command {
        Command::Link(args) => {
            telemetry::init(LogFormat::Text, "info");
            return ended(link::link(args));
        }
        Command::Trace(args) => return ended(link::trace(&args)),
        Command::Certs(args) => return ended(certs::certs(args)),
        Command::Doctor { json } => return ended(examined(&cli.config, json)),
        Command::Manual(command) => return ended(command.run(Cli::command())),
        Command::Inspect { list: true, .. } => {
            println!("{}", ModelSpec::BUILTIN.join("\n"));
            return ExitCode::SUCCESS;
        }
        Command::Inspect { json, .. } => {
            return match named_model(&cli.config) {
                Ok((name, spec)) => ended(inspect(&name, &spec, json).map(|text| print!("{text}"))),
                Err(error) => refused(&error),
            };
        }
        Command::Node(command) => command,
    };
    match cli.config.load() {
        Ok(config) => {
            telemetry::init(config.log.format, &config.log.level);
            ended(run(command, config, cli.config))
        }
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(error: &str) -> ExitCode {
    eprintln!("edge-node: {error}");
    ExitCode::from(2)
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
async fn run(command: NodeCommand, mut config: Config, args: ConfigArgs) -> Result<(), String> {
    match command {
        NodeCommand::Train(_) | NodeCommand::Tune(_) => {
            crate::plan::settle_step(&mut config).await?;
        }
        NodeCommand::Generate(_) => {
            let request = config.plan.request();
            crate::plan::settle(&mut config, request).await?;
        }
        _ => {}
    }
    match command {
        NodeCommand::Prepare(args) => steps::prepare(&config, args),
        NodeCommand::Train(args) => steps::train(&config, args).await,
        NodeCommand::Validate(args) => steps::validate(&config, args).await,
        NodeCommand::Tune(args) => steps::tune(&config, args).await,
        NodeCommand::Serve { run } => {
            if let Some(run) = run {
                tracing::info!(weights = %deploy_run(&config, &run)?, "deployed");
            }
            tokio::spawn(args.clone().follow_log_level());
            stack::serve(config, args).await
        }
        NodeCommand::Report(args) => report::report(&config, args),
        NodeCommand::Generate(args) => generate::generate(&config, args).await,
        NodeCommand::Infer(args) => infer::infer(&config, args).await,
        NodeCommand::Evaluate { edge, json } => {
            let edge = edge.unwrap_or_else(|| format!("http://{}", config.edge.grpc_listen));
            let mut client = EdgeClient::connect(&edge, &config.edge.model_name).await?;
            let found = client.evaluate(&config).await?;
            match json {
                true => println!("{}", found.json()),
                false => print!("{}", found.render(&config)),
            }
            Ok(())
        }
        NodeCommand::Demo { edge, exit, json } => {
            demo::demo(&config, &args, &demo::Options { edge, exit, json }).await
        }
        NodeCommand::Quantize(args) => optimize::quantize(&config, args).await,
        NodeCommand::Prune(args) => optimize::prune(&config, args).await,
        NodeCommand::Profile(args) => plan::profile(&config, args).await,
        NodeCommand::Plan(args) => plan::plan(&config, args).await,
        NodeCommand::Audit(args) => audit::audit(&config, args),
        NodeCommand::Bottleneck(command) => bottleneck::bottleneck(&config, command).await,
        NodeCommand::Exits(command) => exits::exits(&config, command).await,
        NodeCommand::Adapter(command) => optimize::adapter(&config, command).await,
        NodeCommand::Health => match config.security.clients.identity() {
            None => health::check(config.edge.grpc_listen).await,
            Some(identity) => health::check_itself(config.edge.grpc_listen, identity).await,
        },
        NodeCommand::Cloud => cloud_node::serve(config).await,
    }
}

/// What is wrong is what the report says, so that nothing is logged.
#[tokio::main]
async fn examined(args: &ConfigArgs, json: bool) -> Result<(), String> {
    cleave_shared::doctor::report(&crate::doctor::examine(args).await, json)
}

/// The model of `--model`, for which no configuration is needed, or else the configured one.
fn named_model(args: &ConfigArgs) -> Result<(String, ModelSpec), String> {
    if let Some(name) = &args.model {
        let spec = model_by_name(name).map_err(|e| format!("--model: {e}"))?;
        return Ok((name.clone(), spec));
    }
    let spec = args.load().map_err(|e| e.to_string())?.model;
    Ok((spec.family_name().into(), spec))
}
