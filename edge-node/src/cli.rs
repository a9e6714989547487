//! The `edge-node` command.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use cleave_shared::{
    checkpoint::write_atomic,
    config::{Config, ConfigArgs, PROFILES},
    health,
    link::{
        Scheduler,
        generate::{Scenario, generate as make_trace, provenance},
    },
    telemetry::{self, LogFormat},
};

use crate::{
    demo,
    evaluate::EdgeClient,
    generate,
    link::{edges::ProfileSource, proxy, simulate},
    optimize::{adapter, prune, quantize},
    serve::{Generation, Sampling},
    stack, train,
};

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
    /// Makes a trace of a mobile network's rates over time
    Trace(TraceArgs),
}

/// Commands that read the configuration.
#[derive(Subcommand)]
enum NodeCommand {
    /// Serves inference (Open Inference Protocol v2) until SIGTERM or Ctrl-C
    Serve,
    /// Trains the model together with the cloud, and deploys the result
    Train(TrainArgs),
    /// Continues a sequence of token ids together with the cloud, without a running edge
    Generate(GenerateArgs),
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
    /// Measures the model with its weights in 8 and in 4 bits: size, latency, accuracy
    Quantize(QuantizeArgs),
    /// Makes a smaller model of the trained one, and fine-tunes it over the split
    Prune(PruneArgs),
    /// LoRA adapters to and from the folders of Hugging Face's PEFT
    #[command(subcommand)]
    Adapter(AdapterCommand),
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
struct GenerateArgs {
    /// What to continue: token ids with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    prompt_ids: Vec<i64>,
    #[arg(long, default_value_t = 32)]
    max_tokens: usize,
    /// 0 takes the likeliest token each time
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Draws among this many of the likeliest; 0 is all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Draws among the fewest that hold this probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    #[arg(long, default_value_t = 0)]
    sampling_seed: u64,
    /// Token ids that end the sequence
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    stop_ids: Vec<i64>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct QuantizeArgs {
    /// Which weights: seed:N, file:FINGERPRINT or run:ID:STEP [default: what is deployed]
    #[arg(long, value_name = "ID")]
    weights: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PruneArgs {
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
enum AdapterCommand {
    /// Writes the adapters of a run: adapter_config.json and adapter_model.safetensors
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
    Import {
        #[arg(long, value_name = "FOLDER")]
        from: PathBuf,
        /// Run id: letters, digits, '-' and '_'
        #[arg(long, value_name = "ID")]
        run: String,
    },
}

#[derive(Args)]
struct LinkArgs {
    /// Where to accept connections
    #[arg(long, value_name = "ADDRESS", required_unless_present = "simulate")]
    listen: Option<SocketAddr>,
    /// Where to forward them; bytes towards it are uplink
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "simulate")]
    to: Option<String>,
    /// Which network to simulate: a name, or the path of a .toml file
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// Folder of profile files [default: config/links, then /etc/cleave/links]
    #[arg(long, value_name = "FOLDER")]
    profiles: Option<PathBuf>,
    /// Seed of jitter, block errors and outages
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Each client address is an edge; they share one cell, by this scheduler
    #[arg(long, value_name = "SCHEDULER")]
    cell: Option<CellScheduler>,
    /// Serves GET /metrics, and GET and PUT /profile to switch the network
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Writes rate, queue and round trip over time to this SVG file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// No connections: plots this many seconds of a saturated link, in virtual time
    #[arg(long, value_name = "SECONDS", requires = "plot", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    simulate: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CellScheduler {
    RoundRobin,
    ProportionalFair,
}

#[derive(Args)]
struct TraceArgs {
    /// What to simulate
    #[arg(long, value_parser = PossibleValuesParser::new(Scenario::NAMES))]
    scenario: String,
    /// The same seed makes the same trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Length of a row, ms
    #[arg(long, default_value_t = 100)]
    step_ms: u32,
    /// Writes a CSV file
    #[arg(long, value_name = "FILE.csv", required_unless_present = "mahimahi")]
    out: Option<PathBuf>,
    /// Writes a pair of Mahimahi traces, PREFIX.up and PREFIX.down
    #[arg(long, value_name = "PREFIX")]
    mahimahi: Option<PathBuf>,
}

/// Runs the command line; exit code 1 for a failure, 2 for a bad command or configuration.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let command = match cli.command {
        Command::Link(args) => {
            telemetry::init(LogFormat::Text);
            return ended(link(args));
        }
        Command::Trace(args) => return ended(trace(&args)),
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
        NodeCommand::Generate(args) => generated(&config, args).await,
        NodeCommand::Evaluate { edge } => {
            let edge = edge.unwrap_or_else(|| format!("http://{}", config.edge.grpc_listen));
            let mut client = EdgeClient::connect(&edge, &config.edge.model_name).await?;
            print!("{}", client.evaluate(&config).await?.render(&config));
            Ok(())
        }
        NodeCommand::Demo { edge, exit } => {
            demo::demo(&config, &args, &demo::Options { edge, exit }).await
        }
        NodeCommand::Quantize(QuantizeArgs { weights, json }) => {
            quantize::quantize(&config, &quantize::Options { weights, json }).await
        }
        NodeCommand::Prune(PruneArgs { method, amount, fine_tune, weights, json }) => {
            let method = match method {
                PruneMethod::Magnitude => prune::Method::Magnitude,
                PruneMethod::Filter => prune::Method::Filter,
            };
            let options = prune::Options { method, amount, weights, fine_tune, json };
            prune::prune(&config, &options).await
        }
        NodeCommand::Adapter(AdapterCommand::Export { out, weights, prefix }) => {
            adapter::export(&config, weights.as_deref(), out, prefix).await
        }
        NodeCommand::Adapter(AdapterCommand::Import { from, run }) => {
            adapter::import(&config, from, run).await
        }
        NodeCommand::Health => health::check(config.edge.grpc_listen).await,
        NodeCommand::Cloud => cloud_node::serve(config).await,
    }
}

async fn generated(config: &Config, args: GenerateArgs) -> Result<(), String> {
    let GenerateArgs { temperature, top_k, top_p, sampling_seed: seed, .. } = args;
    let request = Generation {
        prompt: args.prompt_ids,
        max_tokens: args.max_tokens,
        sampling: Sampling { temperature, top_k, top_p, seed },
        stop: args.stop_ids,
    };
    let report = generate::generate(config, request).await?;
    let text = match args.json {
        true => serde_json::to_string(&report).map_err(|e| e.to_string())?,
        false => report.render(),
    };
    println!("{text}");
    Ok(())
}

fn link(args: LinkArgs) -> Result<(), String> {
    let folder = args.profiles.or_else(|| {
        let usual = [Path::new("config"), Path::new("/etc/cleave")].map(|f| f.join(PROFILES));
        usual.into_iter().find(|folder| folder.is_dir())
    });
    let profile = ProfileSource { name: args.profile, folder };
    if let Some(file) = &args.plot {
        let svg = file.extension().is_some_and(|extension| extension == "svg");
        svg.then_some(()).ok_or("--plot: the file must end in .svg")?;
    }
    if let (Some(seconds), Some(file)) = (args.simulate, &args.plot) {
        return simulate::draw(&profile.load()?, args.seed, Duration::from_secs(seconds), file);
    }
    let (Some(listen), Some(to)) = (args.listen, args.to) else {
        return Err("--listen and --to are missing".into());
    };
    let cell = args.cell.map(|scheduler| match scheduler {
        CellScheduler::RoundRobin => Scheduler::RoundRobin,
        CellScheduler::ProportionalFair => Scheduler::ProportionalFair,
    });
    let (seed, admin, plot) = (args.seed, args.admin, args.plot);
    proxy::serve(proxy::Options { listen, to, profile, seed, cell, admin, plot })
}

fn trace(args: &TraceArgs) -> Result<(), String> {
    let scenario = Scenario::named(&args.scenario).ok_or("--scenario: unknown")?;
    let (seed, seconds, step_ms) = (args.seed, args.seconds, args.step_ms);
    let trace = make_trace(&scenario, seed, seconds, step_ms).map_err(|error| error.to_string())?;
    let write = |path: PathBuf, bytes: Vec<u8>| {
        write_atomic(&path, &bytes).map_err(|error| error.to_string())?;
        println!("wrote {}", path.display());
        Ok::<(), String>(())
    };
    if let Some(path) = &args.out {
        let mut bytes = provenance(&scenario, seed, seconds, step_ms).into_bytes();
        trace.write_csv(&mut bytes).map_err(|error| error.to_string())?;
        write(path.clone(), bytes)?;
    }
    if let Some(prefix) = &args.mahimahi {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        trace.write_mahimahi(&mut up, &mut down).map_err(|error| error.to_string())?;
        let named = |end: &str| PathBuf::from(format!("{}.{end}", prefix.display()));
        write(named("up"), up)?;
        write(named("down"), down)?;
    }
    Ok(())
}
