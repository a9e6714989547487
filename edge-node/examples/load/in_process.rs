//! The unsplit model on a pool of threads as the nodes have it, without a network: what splitting
//! costs is measured against this.
//!
//! The allocator is left as the system has it, and not told to keep little as in the nodes: a
//! program that only runs a model would not do that.

use std::sync::Arc;

use clap::Args;
use cleave_shared::{compute::ComputePool, config::ConfigArgs, model::Segment, wire::NamedTensors};

use crate::{
    closed_loop::{self, Caller, Span, Summary},
    sample::sample,
    starting_model::StartingModel,
};

/// The configuration says which model, and by `[edge]` threads and queue.
#[derive(Args)]
pub struct InProcessArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Requests under way at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    #[command(flatten)]
    span: Span,
}

pub async fn measure(args: InProcessArgs) -> Result<Summary, String> {
    let InProcessArgs { config, clients, span } = args;
    let config = config.load().map_err(|e| e.to_string())?;
    let edge = &config.edge;
    let pool = ComputePool::new(edge.threads, edge.queue, edge.machine());
    let model = Arc::new(StartingModel::open(&config)?.whole()?);
    let client = |seed| Client {
        pool: pool.clone(),
        model: model.clone(),
        input: Arc::new(sample(&config.model, config.plan.length, seed)),
    };
    let clients = (0..u64::from(clients)).map(client).collect::<Vec<_>>();
    Ok(closed_loop::run(clients, span).await)
}

struct Client {
    pool: ComputePool,
    model: Arc<Segment>,
    input: Arc<NamedTensors>,
}

impl Caller for Client {
    async fn ask(&mut self) -> Result<(), String> {
        let (model, input) = (self.model.clone(), self.input.clone());
        let output = self.pool.run(move || model.infer(&input)).await;
        output.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        Ok(())
    }
}
