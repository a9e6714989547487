//! `edge-node profile`: measures this machine, asks the cloud for its own times, and keeps both for the
//! planner.

mod accuracy;
mod host;
mod table;

use std::{path::PathBuf, sync::Arc};

use cleave_shared::{
    checkpoint::Library,
    codec,
    compute::{ComputePool, Machine},
    config::Config,
    link::{Link, Profile},
    profile::{ComputeProfile, Request, device_name, measure, sample_input},
};

pub use self::table::render;
use crate::{
    bar::{follow, waiting},
    cloud::explain,
    plan::Measured,
    stack,
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    pub request: Request,
    /// Codecs to measure at each cut; empty: those that `[plan]` may choose.
    pub codecs: Vec<String>,
    /// Whether to count right answers through each codec at each cut.
    pub accuracy: bool,
    /// Nothing is shown on a terminal, for a node that serves.
    pub quiet: bool,
}

/// The profile's file, and what is in it.
pub async fn profile(config: &Config, options: &Options) -> Result<(PathBuf, Measured), String> {
    let codecs = match options.codecs.is_empty() {
        true => choosable(config),
        false => options.codecs.clone(),
    };
    let library = Arc::new(config.library(Arc::new(config.runs.open("edge")?))?);
    let edge = here(config, options, &codecs, &library).await?;
    // On the network as it is: the simulated link has its own model.
    let none = Link::new(Profile::builtin("none").expect("comes with Cleave"), 0);
    let cloud = stack::client(config, &none)?;
    let refused = |status: tonic::Status| explain(cloud.address(), &status);
    let weights = library.initial(config.seed).to_string();
    let agreement = config.agreement(0, &weights);
    let shown = waiting("the cloud measures", options.quiet);
    let there = cloud.profile(agreement, options.request, codecs.clone()).await;
    let there = there.map_err(refused)?;
    if there.stages.len() != edge.stages.len() {
        return Err("the cloud's profile has other stages: run the same version on both".into());
    }
    shown.set_message("timing calls");
    let host = host::measure(&cloud).await.map_err(refused)?;
    shown.finish_and_clear();
    let accuracy = match options.accuracy {
        true => accuracy::measure(config, &codecs, cloud).await?,
        false => Vec::new(),
    };
    let measured = Measured {
        spec_hash: config.model.hash(),
        model: config.model.family_name().into(),
        batch: options.request.batch,
        length: options.request.length,
        output_bytes: output_bytes(config, options.request),
        scale: config.edge.compute_scale,
        edge,
        cloud: there,
        host,
        accuracy,
    };
    let path = path(config, options.request);
    measured.write(&path)?;
    Ok((path, measured))
}

/// What was measured before, if it has what the configuration needs; else measures. `quiet` as in [`Options`].
pub async fn known_or_measured(
    config: &Config,
    request: Request,
    quiet: bool,
) -> Result<Measured, String> {
    if let Some(known) = known(config, request)? {
        return Ok(known);
    }
    let options = Options { request, codecs: Vec::new(), accuracy: false, quiet };
    Ok(profile(config, &options).await?.1)
}

/// What was measured before, if it has what the configuration needs.
pub fn known(config: &Config, request: Request) -> Result<Option<Measured>, String> {
    let known = Measured::read(&path(config, request))?.filter(|m| m.knows(&choosable(config)));
    Ok(known.map(|known| Measured { scale: config.edge.compute_scale, ..known }))
}

/// The codecs that the planner may choose.
pub fn choosable(config: &Config) -> Vec<String> {
    match config.plan.codecs.is_empty() {
        true => vec![config.codec.activation.clone()],
        false => config.plan.codecs.clone(),
    }
}

/// Where this model's times on this machine are.
fn path(config: &Config, request: Request) -> PathBuf {
    let (runs, device) = (&config.runs.dir, device_name());
    Measured::path(runs, &config.model.hash(), &device, config.edge.machine().kernels(), request)
}

/// This machine, on threads of its own.
async fn here(
    config: &Config,
    options: &Options,
    codecs: &[String],
    library: &Arc<Library>,
) -> Result<ComputeProfile, String> {
    let kernel_threads = config.edge.kernel_threads;
    let (request, shown) = (options.request, waiting("building the model", options.quiet));
    let (config, codecs, library) = (config.clone(), codecs.to_vec(), library.clone());
    let work = move || {
        let codecs = codecs.iter().map(|name| codec::by_name(name));
        let codecs = codecs.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        let (spec, format) = (&config.model, config.quantize.weights);
        let weights = library.initial(config.seed);
        let mut source =
            library.source(&weights, &spec.stage_names()).map_err(|e| e.to_string())?;
        let told = |step| follow(&shown, step);
        let found = measure(spec, format, request, &codecs, source.as_mut(), &told);
        found.map_err(|e| e.to_string())
    };
    let pool = ComputePool::new(1, 1, Machine::new(kernel_threads));
    pool.run(work).await.map_err(|e| format!("measuring failed: {e}"))?
}

/// Bytes of the answer to a request of this size.
fn output_bytes(config: &Config, request: Request) -> u64 {
    let input = sample_input(&config.model, request.batch, request.length);
    crate::ports::output_bytes(&config.model, &input) as u64
}
