//! This node's edges in a group that learns one model; `train.topology` says how.
//!
//! One process is one edge (`train --edge I`), or for studies all of them, each with its own samples,
//! connection and radio in one cell. An edge holds nothing between its turns: [`member`] joins the
//! group, does what the cloud says, and joins again after a broken connection; [`turn`] is the work of
//! one turn.

mod lines;
mod member;
mod stream;
mod turn;

use std::{sync::Arc, time::Instant};

use cleave_shared::{
    checkpoint::{RunStore, WeightsId},
    compute::ComputePool,
    config::Config,
    data::{BatchPlan, Feed, Part},
    link::{Cell, Link, Scheduler},
    session::GroupSpec,
};
use tokio::task::JoinSet;

use self::{lines::Lines, member::Member};
use crate::{
    cloud::explain,
    stack,
    train::{Options, Outcome, RunDir},
};

/// Jobs that may wait for a compute thread: one for each edge that has its turn.
const QUEUE: usize = 4096;

/// What all edges of this process share.
pub struct Common {
    pub config: Config,
    pub spec: GroupSpec,
    pub run: String,
    /// What the run began with.
    pub initial: WeightsId,
    pub feed: Feed,
    pub validation: Vec<usize>,
    pub pool: ComputePool,
    pub lines: Lines,
}

/// Learns with the group until its last round.
pub async fn train(
    config: &Config,
    options: &Options,
    feed: Feed,
    dir: &RunDir,
) -> Result<Outcome, String> {
    let begin = Instant::now();
    let topology = &config.train.topology;
    let numbers = match options.edge {
        Some(edge) if edge < topology.edges => edge..edge + 1,
        Some(edge) => {
            let edges = topology.edges;
            return Err(format!("--edge {edge}: train.topology.edges is {edges}, counted from 0"));
        }
        None => 0..topology.edges,
    };
    let library = config.library(dir.store.clone())?;
    let split = feed.dataset().split(config.seed);
    let dealt = topology.partition().deal(
        feed.dataset().as_ref(),
        split.indices(Part::Train),
        topology.edges,
        config.seed,
    );
    let parts = dealt.map_err(|e| e.to_string())?;
    let common = Arc::new(Common {
        config: config.clone(),
        spec: group_spec(config),
        run: dir.id.clone(),
        initial: library.initial(config.seed),
        validation: split.indices(Part::Validation).to_vec(),
        feed,
        pool: ComputePool::new(config.edge.threads, QUEUE, config.edge.machine()),
        lines: Lines::open(&dir.path, options.edge)?,
    });
    let cell = Cell::new(Scheduler::default());
    let mut links = Vec::new();
    let mut members = JoinSet::new();
    for (edge, samples) in numbers.clone().zip(&parts[numbers]) {
        let link = cell.join(config.link_profile(), config.link.seed ^ edge as u64);
        let client = stack::client(config, &link)?;
        let plan = BatchPlan::new(samples.clone(), config.train.batch_size, config.seed);
        let plan = plan.map_err(|e| e.to_string())?;
        let samples = samples.len() as u64;
        let member =
            Member { common: common.clone(), edge, samples, plan, client, link: link.clone() };
        links.push(link);
        members.spawn(async move { member.run().await });
    }
    let mut rounds = 0;
    while let Some(ended) = members.join_next().await {
        rounds = ended.map_err(|e| e.to_string())??;
    }
    // One process among several leaves the folder to the one that deploys.
    if options.edge.is_none() || !options.no_deploy {
        fetch_head(config, dir, library.store(), rounds).await?;
    }
    let sum = |bytes: fn(&Link) -> u64| links.iter().map(bytes).sum();
    Ok(Outcome {
        run: dir.id.clone(),
        steps: rounds,
        validated: common.lines.validated(),
        stopped: false,
        elapsed: begin.elapsed(),
        uplink_bytes: sum(|link| link.counters().uplink.accepted_bytes),
        downlink_bytes: sum(|link| link.counters().downlink.delivered_bytes),
    })
}

/// The head of the last round, as a run of a single edge would have it on disk.
async fn fetch_head(
    config: &Config,
    dir: &RunDir,
    store: &RunStore,
    round: u64,
) -> Result<(), String> {
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = stack::client(config, &link)?;
    let stages = config.model.stage_names()[..config.split()].to_vec();
    let weights = WeightsId::Run { run: dir.id.clone(), step: round }.to_string();
    let fetched = client.fetch_weights(&weights, stages.clone()).await;
    let (tensors, adapters) = fetched.map_err(|status| explain(client.address(), &status))?;
    store.add(&dir.id, round, &stages, tensors, adapters).map_err(|e| e.to_string())
}

fn group_spec(config: &Config) -> GroupSpec {
    GroupSpec {
        training: config.train.spec(),
        topology: config.train.topology.clone(),
        schedule: config.train.schedule,
        batch_size: config.train.batch_size as u64,
        seed: config.seed,
    }
}
