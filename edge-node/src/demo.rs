//! The whole system at once: cloud and edge as processes, training across the link, then the
//! held-out samples sent to the edge.
//!
//! With `--edge` it uses nodes that run already, as the compose file's job does.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use cleave_shared::{
    config::{Config, ConfigArgs},
    health, shutdown,
};
use indicatif::HumanBytes;
use tokio::process::{Child, Command};

use crate::{
    deploy::version,
    evaluate::{EdgeClient, Evaluation},
    train::{self, Outcome},
};

/// How long a node may take to start, and the edge to take up new weights.
const START: Duration = Duration::from_secs(30);
const DEPLOY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A running edge, `http://host:port`; without it both nodes are started.
    pub edge: Option<String>,
    /// End when the report is printed.
    pub exit: bool,
    /// The report is one JSON object, and alone on the standard output.
    pub json: bool,
}

/// Runs the demo; the error is one line.
pub async fn demo(config: &Config, args: &ConfigArgs, options: &Options) -> Result<(), String> {
    match &options.edge {
        Some(edge) => train_and_ask(config, edge, options.json).await,
        None => {
            let mut nodes = Nodes::start(config, args).await?;
            let edge = format!("http://{}", config.edge.grpc_listen);
            // Ctrl-C reaches the nodes as well: that they end then is no failure.
            tokio::select! {
                biased;
                () = shutdown::requested() => return nodes.stop().await,
                died = nodes.died() => return Err(died),
                outcome = train_and_ask(config, &edge, options.json) => outcome?,
            }
            if options.exit {
                return nodes.stop().await;
            }
            let EdgeUrls { http, grpc } = EdgeUrls::new(config);
            let text = format!(
                "\nThe edge answers at {http} and {grpc} (gRPC). Change split_point in the \
                 configuration file and ask again. Ctrl-C ends both nodes."
            );
            say(options.json, &text);
            tokio::select! {
                biased;
                () = shutdown::requested() => nodes.stop().await,
                died = nodes.died() => Err(died),
            }
        }
    }
}

struct EdgeUrls {
    http: String,
    grpc: String,
}

impl EdgeUrls {
    fn new(config: &Config) -> Self {
        let edge = &config.edge;
        Self { http: format!("http://{}", edge.http_listen), grpc: edge.grpc_listen.to_string() }
    }
}

/// What is for a person, and not part of a JSON report.
fn say(json: bool, text: &str) {
    match json {
        true => eprintln!("{text}"),
        false => println!("{text}"),
    }
}

async fn train_and_ask(config: &Config, edge: &str, json: bool) -> Result<(), String> {
    let (profile, split) = (&config.link.profile, config.split());
    let (model, stages) = (config.model.family_name(), config.model.stage_count());
    say(json, &format!("training {model} split at {split} of {stages} across {profile}"));
    let outcome = train::train(config, &train::Options::default()).await?;
    say(json, &summary(&outcome));
    let mut client = EdgeClient::connect(edge, &config.edge.model_name).await?;
    await_version(&mut client, &outcome).await?;
    let evaluation = client.evaluate(config).await?;
    match json {
        true => println!("{}", report(config, &outcome, &evaluation)),
        false => print!("\n{}", evaluation.render(config)),
    }
    Ok(())
}

/// All of it for programs.
fn report(config: &Config, outcome: &Outcome, evaluation: &Evaluation) -> serde_json::Value {
    serde_json::json!({
        "model": config.model.family_name(),
        "stages": config.model.stage_count(),
        "split_point": config.split(),
        "link": config.link.profile,
        "training": outcome.json(),
        "evaluation": evaluation.json(),
    })
}

/// A run in two lines.
pub fn summary(outcome: &Outcome) -> String {
    let Outcome { run, steps, elapsed, uplink_bytes, downlink_bytes, .. } = outcome;
    let seconds = elapsed.as_secs_f64();
    let score = outcome.validated.map_or("none".into(), |v| v.score.to_string());
    format!(
        "trained {run}: {steps} steps in {seconds:.1} s, {} up, {} down; validation {score}",
        HumanBytes(*uplink_bytes),
        HumanBytes(*downlink_bytes)
    )
}

/// Waits until the edge serves what was trained.
async fn await_version(client: &mut EdgeClient, outcome: &Outcome) -> Result<(), String> {
    let run = outcome.run.clone();
    let expected = version(&cleave_shared::checkpoint::WeightsId::Run { run, step: outcome.steps });
    let begin = Instant::now();
    loop {
        let found = client.version().await?;
        if found == expected {
            return Ok(());
        }
        if begin.elapsed() > DEPLOY {
            return Err(format!("the edge still serves {found}, not {expected}; see its log"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Both nodes as child processes, which end with this one.
struct Nodes {
    cloud: Child,
    edge: Child,
}

impl Nodes {
    async fn start(config: &Config, args: &ConfigArgs) -> Result<Self, String> {
        let mut cloud = spawn("cloud", args)?;
        await_healthy("cloud", config.cloud.listen, &mut cloud).await?;
        let mut edge = spawn("serve", args)?;
        await_healthy("edge", config.edge.grpc_listen, &mut edge).await?;
        Ok(Self { cloud, edge })
    }

    async fn died(&mut self) -> String {
        tokio::select! {
            status = self.cloud.wait() => format!("the cloud node ended: {}", shown(status)),
            status = self.edge.wait() => format!("the edge node ended: {}", shown(status)),
        }
    }

    async fn stop(mut self) -> Result<(), String> {
        for child in [&mut self.edge, &mut self.cloud] {
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        Ok(())
    }
}

/// Starts this program again with the same configuration.
pub(crate) fn spawn(command: &str, args: &ConfigArgs) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
    let quiet = std::env::var_os("RUST_LOG").is_none();
    let mut child = Command::new(program);
    child.arg(command).args(args.to_words()).stdin(Stdio::null()).kill_on_drop(true);
    if quiet {
        // The demo's own lines are what the user wants to read; failures still come through.
        child.env("RUST_LOG", "warn");
    }
    child.spawn().map_err(|e| format!("cannot start the {command} process: {e}"))
}

pub(crate) async fn await_healthy(
    name: &str,
    address: SocketAddr,
    child: &mut Child,
) -> Result<(), String> {
    let begin = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the {name} node ended at once: {status}"));
        }
        match health::check(address).await {
            Ok(()) => return Ok(()),
            Err(text) if begin.elapsed() > START => {
                return Err(format!("the {name} node is not healthy after 30 s: {text}"));
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

fn shown(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|e| e.to_string(), |s| s.to_string())
}
