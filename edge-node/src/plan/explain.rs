//! `edge-node plan`: predicts all choices, and sends real requests beside them if it is asked to.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cleave_shared::{
    compute::ComputePool,
    config::{Config, MicroBatches, SplitPoint},
    link::Link,
    profile::{Request, Spread, sample_input},
};
use indicatif::ProgressBar;
use tokio::sync::watch;

use super::{
    Choice, Costs, Curve, HostCost, Limits, Measured, Network, Plan, Row, StepPlan, plan,
    plan_step, search,
};
use crate::{
    bar::bar,
    cloud::explain,
    deploy::{Deployer, Target},
    ports,
    predict::SplitPredictor,
    profile::{choosable, known_or_measured},
    serve::{InferRequest, Predictor, Query},
    stack,
};

/// Requests of each choice that are not counted.
const WARM_UP: usize = 2;
/// Pauses between requests are a multiple of this, up to 20 ms.
const PAUSE: Duration = Duration::from_micros(1_037);
/// What a link that nobody knows is probed with, bytes each way.
const PROBES: [usize; 3] = [256, 32 << 10, 256 << 10];
const PROBES_OF_EACH: usize = 3;

/// Everything a plan stands on.
pub struct Grounds {
    pub measured: Measured,
    pub costs: Costs,
    pub network: Network,
    /// What is not in `network` yet.
    pub host: HostCost,
}

/// A plan for people.
pub struct Explained {
    pub title: String,
    pub rows: Vec<Row>,
    /// Why there is no choice, if there is none.
    pub problem: Option<String>,
}

/// Measures what is not known yet: both nodes' times, and the link. `quiet`: without showing how far it is.
pub async fn grounds(config: &Config, request: Request, quiet: bool) -> Result<Grounds, String> {
    grounds_of(config, known_or_measured(config, request, quiet).await?).await
}

/// The same from what was measured before.
pub async fn grounds_of(config: &Config, measured: Measured) -> Result<Grounds, String> {
    let found = config.model.inspect().map_err(|e| e.to_string())?;
    let costs = Costs::new(&measured, &found, &choosable(config));
    let most = costs.crossings.iter().flatten().map(|c| c.bytes).max().unwrap_or(1);
    let profile = config.link_profile();
    // A simulated link is known as far as its file says; one that follows a trace, or is real, is not.
    let simulated = profile.trace.is_none() && profile.name != "none";
    let pause = Duration::from_millis(config.plan.pause_ms);
    // The simulation computes for a while.
    let simulate =
        move || if simulated { Network::of_profile(&profile, most, pause) } else { None };
    let known =
        tokio::task::spawn_blocking(simulate).await.map_err(|e| format!("the link: {e}"))?;
    let (network, host) = match known {
        Some(network) => (network, measured.host),
        None => (probe(config).await?, HostCost::default()),
    };
    Ok(Grounds { measured, costs, network, host })
}

/// Lines through a few probes.
async fn probe(config: &Config) -> Result<Network, String> {
    let link = Link::new(config.link_profile(), config.link.seed);
    let cloud = stack::client(config, &link)?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    // The first opens the connection.
    for bytes in std::iter::once(1).chain(PROBES) {
        let (mut ups, mut downs) = (Vec::new(), Vec::new());
        for _ in 0..PROBES_OF_EACH {
            if bytes > 1 {
                tokio::time::sleep(config.plan.pause()).await;
            }
            let took = cloud.probe(bytes, bytes).await;
            let (there, back) = took.map_err(|s| explain(cloud.address(), &s))?;
            ups.push(there);
            downs.push(back);
        }
        if bytes > 1 {
            up.push((bytes as f64, Spread::of(ups).median_ms));
            down.push((bytes as f64, Spread::of(downs).median_ms));
        }
    }
    Ok(Network { up: Curve::rising(up), down: Curve::rising(down) })
}

impl Grounds {
    pub fn limits(&self, config: &Config) -> Limits {
        let accuracy = self.measured.accuracy.clone();
        let (head_factor, tail_factor) = (1.0, 1.0);
        Limits { config: config.plan.clone(), queue_ms: 0.0, head_factor, tail_factor, accuracy }
    }

    pub fn plan(&self, config: &Config) -> Plan {
        plan(&self.costs, &self.network, self.host, &self.limits(config))
    }
}

/// The plan as rows; `requests` real ones of each choice are sent if it is not 0.
pub async fn explained(
    config: &Config,
    request: Request,
    requests: usize,
) -> Result<Explained, String> {
    let grounds = grounds(config, request, false).await?;
    let found = grounds.plan(config);
    let best = found.best().map(|p| p.choice.clone());
    let names = config.model.stage_names();
    let after = |split: usize| match split {
        0 => "input".to_string(),
        n => names[n - 1].clone(),
    };
    let row = |p: &super::Predicted| {
        Row::new(p, &after(p.choice.split), best.as_ref() == Some(&p.choice))
    };
    let mut rows: Vec<Row> = found.all.iter().map(row).collect();
    if requests > 0 {
        let trial = Trial::new(config, request)?;
        let shown = bar("measuring choices", rows.len() * (WARM_UP + requests));
        for (row, predicted) in rows.iter_mut().zip(&found.all) {
            row.measured_ms = Some(trial.measure(&predicted.choice, requests, &shown).await?);
        }
    }
    let Measured { model, batch, scale, .. } = &grounds.measured;
    let title = format!(
        "{model}, batch {batch}, across {}, edge {} × {scale}, cloud {}",
        config.link.profile, grounds.measured.edge.device, grounds.measured.cloud.device
    );
    let problem = best.is_none().then(|| found.why_not());
    Ok(Explained { title, rows, problem })
}

/// Sets the planner's choice in a configuration that leaves it to the planner, for a command that runs to
/// an end.
pub async fn settle(config: &mut Config, request: Request) -> Result<(), String> {
    if !config.split_point.is_auto() {
        return Ok(());
    }
    let found = grounds(config, request, false).await?.plan(config);
    let best = found.best().ok_or_else(|| found.why_not())?;
    config.split_point = SplitPoint::Auto { planned: best.choice.split };
    if let Some(codec) = &best.choice.codec {
        config.codec.activation.clone_from(codec);
    }
    Ok(())
}

/// The same for a run of training: where a step is the quickest.
pub async fn settle_step(config: &mut Config) -> Result<(), String> {
    if !config.split_point.is_auto() {
        return Ok(());
    }
    let batch = config.train.batch_size;
    let request = Request { batch, training: true, ..config.plan.request() };
    let grounds = grounds(config, request, false).await?;
    let fixed = match config.train.micro_batches {
        MicroBatches::Fixed(count) => Some(count.min(batch as u32)),
        MicroBatches::Auto => None,
    };
    let (codecs, limits) = (choosable(config), grounds.limits(config));
    let end = config.train.topology.last_split.unwrap_or(grounds.costs.stages());
    let allowed = |step: &StepPlan| {
        (config.plan.min_split_point..end).contains(&step.split)
            && codecs.contains(&step.codec)
            && search::fits(step.split, &grounds.costs, &limits)
    };
    let steps = plan_step(&grounds.measured, &grounds.network, fixed);
    let StepPlan { split, codec, micro_batches, step_ms } = steps.into_iter().find(allowed).ok_or(
        "split_point = \"auto\": [plan]'s limits leave no split point with stages on both sides",
    )?;
    tracing::info!(split_point = split, codec, micro_batches, step_ms, "planned for training");
    config.split_point = SplitPoint::Auto { planned: split };
    config.codec.activation = codec;
    Ok(())
}

/// Real requests through both nodes, one after the other.
struct Trial {
    deployer: Deployer,
    predictor: SplitPredictor,
    deployed: watch::Sender<Option<Arc<crate::deploy::Deployment>>>,
    query: Query,
    config: Config,
}

impl Trial {
    fn new(config: &Config, request: Request) -> Result<Self, String> {
        let link = Link::new(config.link_profile(), config.link.seed);
        let client = stack::client(config, &link)?;
        let edge = &config.edge;
        let pool = ComputePool::new(edge.threads, edge.queue, edge.machine());
        let deployer = Deployer::new(config, client.clone())?;
        let (deployed, current) = watch::channel(None);
        let cloud = stack::cloud_call(config, client, Arc::default());
        let predictor = SplitPredictor::new(config.clone(), current, pool, cloud, None);
        let input = sample_input(&config.model, request.batch, request.length);
        let named = ports::outside_inputs(&config.model, input);
        let query = Query::Tensors(named);
        Ok(Self { deployer, predictor, deployed, query, config: config.clone() })
    }

    /// Median of so many requests, ms.
    async fn measure(
        &self,
        choice: &Choice,
        requests: usize,
        shown: &ProgressBar,
    ) -> Result<f64, String> {
        let target = self.deployer.target(&self.config)?;
        let codec = choice.codec.clone().unwrap_or(target.codec);
        let target = Target { split: choice.split, codec, ..target };
        let deployment = self.deployer.deploy(target).await?;
        self.deployed.send_replace(Some(Arc::new(deployment)));
        let request = InferRequest { exits: false, ..self.query.clone().into() };
        let mut times = Vec::with_capacity(requests);
        for number in 0..WARM_UP + requests {
            // Users do not wait for the radio's slots: requests come at any phase of them.
            tokio::time::sleep(PAUSE * (number as u32 * 7 % 20)).await;
            let begin = Instant::now();
            self.predictor.predict(request.clone()).await.map_err(|e| e.to_string())?;
            if number >= WARM_UP {
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            shown.inc(1);
        }
        Ok(Spread::of(times).median_ms)
    }
}
