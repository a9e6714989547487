//! `edge-node prune`: fewer weights, or fewer filters, and fine-tuning over the split.
//!
//! The pruned model is a folder of its own with a configuration that both nodes can start from:
//!
//! ```text
//! <runs>/edge/<run>/pruned-filter-50/cleave.toml         this configuration, with the pruned model
//!                                    model.safetensors   its weights, fine-tuned if that was asked for
//!                                    pruned.safetensors  before fine-tuning
//! ```
//!
//! Fine-tuning is an ordinary run of split training across the link, with a cloud process of its own,
//! since the pruned model is not the one that the running cloud has.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use cleave_shared::{
    checkpoint::{WeightsId, write_atomic, write_weights},
    config::{Config, ConfigArgs},
    model::{LoadedWeights, ModelSpec, Segment, prune_filters, prune_smallest},
    wire::NamedTensors,
};

use super::{Figures, Report, blocking, deliver, measure, whole_model};
use crate::{demo, deploy::folder_of, train};

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The smallest weights of each matrix become zero.
    Magnitude,
    /// The weakest filters of each convolution are removed.
    Filter,
}

/// What the command line adds to the configuration.
#[derive(Debug, Clone)]
pub struct Options {
    pub method: Method,
    /// Share of weights or filters that goes, 0 to less than 1.
    pub amount: f64,
    /// Weights id; what is deployed without one.
    pub weights: Option<String>,
    /// Epochs of fine-tuning over the split; none without it.
    pub fine_tune: Option<u64>,
    pub json: bool,
}

/// Prunes, tunes, measures, prints and saves; the error is one line.
pub async fn prune(config: &Config, options: &Options) -> Result<(), String> {
    if !(0.0..1.0).contains(&options.amount) {
        return Err(format!(
            "--amount: {} is out of range; allowed: 0 to less than 1",
            options.amount
        ));
    }
    let source = whole_model(config, options.weights.as_deref()).await?;
    let original = source.tensors(&config.model).await?;
    let mut rows = vec![figures("as it is", config, &original).await?];

    let (spec, pruned) = cut(&config.model, original, options)?;
    let name = match options.method {
        Method::Magnitude => "magnitude",
        Method::Filter => "filter",
    };
    let name = format!("{name}-{:.0}", options.amount * 100.0);
    let reports = folder_of(&config.runs.dir, &source.id);
    let folder = reports.join(format!("pruned-{name}"));
    let mut narrow = Config { model: spec, ..config.clone() };
    narrow.train.lora = None;
    narrow.train.sparsity = match options.method {
        Method::Magnitude => options.amount,
        Method::Filter => 0.0,
    };
    write_model(&mut narrow, &folder, &pruned)?;
    rows.push(figures(&name, &narrow, &pruned).await?);
    if let Some(epochs) = options.fine_tune {
        let tuned = fine_tune(&narrow, &folder, &pruned, epochs, options.json).await?;
        rows.push(figures("fine-tuned", &narrow, &tuned).await?);
    }
    let report = Report { weights: source.id.to_string(), models: rows };
    deliver(&report, reports, &format!("prune-{name}"), options.json)?;
    if !options.json {
        let file = folder.join(CONFIG).display().to_string();
        println!(
            "serve it with cloud-node serve --config {file} and edge-node serve --config {file}"
        );
    }
    Ok(())
}

const CONFIG: &str = "cleave.toml";
const MODEL: &str = "model.safetensors";
const PRUNED: &str = "pruned.safetensors";

fn cut(
    spec: &ModelSpec,
    weights: NamedTensors,
    options: &Options,
) -> Result<(ModelSpec, NamedTensors), String> {
    match options.method {
        Method::Magnitude => Ok((spec.clone(), prune_smallest(weights, options.amount))),
        Method::Filter => prune_filters(spec, &weights, options.amount).map_err(|e| e.to_string()),
    }
}

/// The folder's configuration and weights.
fn write_model(config: &mut Config, folder: &Path, weights: &NamedTensors) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    let model = folder.join(MODEL);
    write_weights(&model, weights).map_err(|e| e.to_string())?;
    config.weights.file = Some(model);
    config.runs.dir = folder.join("runs");
    let text = toml::to_string(config).map_err(|e| format!("{CONFIG}: {e}"))?;
    write_atomic(&folder.join(CONFIG), text.as_bytes()).map_err(|e| e.to_string())
}

async fn figures(name: &str, config: &Config, weights: &NamedTensors) -> Result<Figures, String> {
    let dataset = config.data.open().map_err(|e| e.to_string())?;
    let (name, config, weights) = (name.to_string(), config.clone(), weights.clone());
    blocking(move || {
        let all = 0..config.model.stage_count();
        let mut source = LoadedWeights::new(weights);
        let model = Segment::build(&config.model, all, &mut source, false);
        measure(&name, &model.map_err(|e| e.to_string())?, dataset.as_ref(), &config)
    })
    .await
}

/// Trains the pruned model across the link; its weights afterwards, which take the place of
/// `model.safetensors`.
async fn fine_tune(
    config: &Config,
    folder: &Path,
    pruned: &NamedTensors,
    epochs: u64,
    quiet: bool,
) -> Result<NamedTensors, String> {
    let start = absolute(folder, PRUNED)?;
    write_weights(&start, pruned).map_err(|e| e.to_string())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    drop(listener);
    let mut config = config.clone();
    config.weights.file = Some(start.clone());
    config.train.epochs = epochs;
    config.cloud.listen = address;
    config.edge.cloud = format!("http://{address}");
    let set = [
        format!("weights.file={}", start.display()),
        format!("cloud.listen={address}"),
        format!("edge.cloud=http://{address}"),
    ];
    let file = absolute(folder, CONFIG)?;
    let args = ConfigArgs { config: Some(file), set: set.into(), ..ConfigArgs::default() };
    let mut cloud = demo::spawn("cloud", &args)?;
    demo::await_healthy("cloud", address, &mut cloud).await?;
    let options = train::Options { no_deploy: true, ..train::Options::default() };
    let outcome = train::train(&config, &options).await?;
    if !quiet {
        println!("{}", demo::summary(&outcome));
    }
    let id = WeightsId::Run { run: outcome.run, step: outcome.steps }.to_string();
    let source = whole_model(&config, Some(&id)).await?;
    let _ = cloud.start_kill();
    let _ = cloud.wait().await;
    let tuned = source.tensors(&config.model).await?;
    write_weights(&absolute(folder, MODEL)?, &tuned).map_err(|e| e.to_string())?;
    Ok(tuned)
}

fn absolute(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder.join(name))
}
