//! Makes deployments: brings the weights where they are needed, agrees with the cloud, builds.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::{RunStore, WeightsId},
    compute::ComputePool,
    config::Config,
    model::{LoadedWeights, ModelSpec, SeededWeights, Segment, Weights},
    wire::{NamedTensors, PROTOCOL_VERSION, v1::Agreement},
};

use super::{Deployment, Target};
use crate::cloud::{CloudClient, explain};

/// Handshakes to learn the offset of the cloud's clock from; see `cloud::clock`.
const CLOCK_SAMPLES: usize = 5;

/// What every deployment of this process has in common.
pub struct Deployer {
    spec: ModelSpec,
    codecs: [String; 2],
    store: Arc<RunStore>,
    pool: ComputePool,
    cloud: CloudClient,
}

impl Deployer {
    pub fn new(config: &Config, pool: ComputePool, cloud: CloudClient) -> Self {
        Self {
            spec: config.model.clone(),
            codecs: [config.codec.activation.clone(), config.codec.gradient.clone()],
            store: Arc::new(RunStore::new(config.runs.dir.join("edge"))),
            pool,
            cloud,
        }
    }

    /// What both nodes have to agree on for this target.
    pub fn agreement(&self, target: &Target) -> Agreement {
        let [activation_codec, gradient_codec] = self.codecs.clone();
        Agreement {
            protocol_version: PROTOCOL_VERSION,
            spec_hash: self.spec.hash(),
            spec: self.spec.canonical(),
            split_point: target.split as u32,
            activation_codec,
            gradient_codec,
            weights: target.weights.to_string(),
        }
    }

    /// Makes the deployment of a target; the error is one line.
    pub async fn deploy(&self, target: Target) -> Result<Deployment, String> {
        self.spec.check_split(target.split).map_err(|e| e.to_string())?;
        let head = self.bring_head(&target).await?;
        let mut agreement = self.agreement(&target);
        if target.split < self.spec.stage_count() {
            self.bind(&target, &agreement).await?;
        }
        agreement.spec.clear();
        let head = self.build(&target, head).await?;
        if let WeightsId::Run { run, step } = &target.weights {
            self.store.pin(run, *step).map_err(|e| e.to_string())?;
        }
        let stages = self.spec.stage_count();
        Ok(Deployment { target, stages, head: Arc::new(head), agreement })
    }

    /// Weights of the head, from this node's checkpoints or from the cloud's; none for a seed.
    async fn bring_head(&self, target: &Target) -> Result<Option<NamedTensors>, String> {
        let WeightsId::Run { run, step } = &target.weights else { return Ok(None) };
        let stages = &self.spec.stage_names()[..target.split];
        let here = self.store.stages(run, *step).map_err(|e| e.to_string())?;
        let absent: Vec<_> = stages.iter().filter(|s| !here.contains(*s)).cloned().collect();
        if !absent.is_empty() {
            let id = target.weights.to_string();
            let fetched = self.cloud.fetch_weights(&id, absent.clone()).await;
            let fetched = fetched.map_err(|s| self.explain(&s))?;
            tracing::info!(
                stages = absent.join(" "),
                "fetched weights of stages that move to the edge"
            );
            self.store.add(run, *step, &absent, fetched).map_err(|e| e.to_string())?;
        }
        self.read(run, *step, stages).map(Some)
    }

    fn read(&self, run: &str, step: u64, stages: &[String]) -> Result<NamedTensors, String> {
        let mut all = NamedTensors::new();
        for stage in stages {
            let files = self.store.read(run, step, stage).map_err(|e| e.to_string())?;
            all.extend(files.weights);
        }
        Ok(all)
    }

    /// The handshake; stages that the cloud lacks are given to it.
    async fn bind(&self, target: &Target, agreement: &Agreement) -> Result<(), String> {
        let missing = self.cloud.bind(agreement).await.map_err(|s| self.explain(&s))?;
        if !missing.is_empty() {
            self.give(target, agreement, missing).await?;
        }
        for _ in 1..CLOCK_SAMPLES {
            self.cloud.bind(agreement).await.map_err(|s| self.explain(&s))?;
        }
        Ok(())
    }

    async fn give(
        &self,
        target: &Target,
        agreement: &Agreement,
        missing: Vec<String>,
    ) -> Result<(), String> {
        let WeightsId::Run { run, step } = &target.weights else {
            return Err("the cloud lacks weights of a seed; it is broken".into());
        };
        let here = self.store.stages(run, *step).map_err(|e| e.to_string())?;
        let nowhere: Vec<_> = missing.iter().filter(|s| !here.contains(*s)).cloned().collect();
        if !nowhere.is_empty() {
            let (id, stages) = (&target.weights, nowhere.join(", "));
            return Err(format!(
                "{id}: neither edge nor cloud has the weights of {stages}; train again, or bring \
                 back the cloud's runs folder"
            ));
        }
        let tensors = self.read(run, *step, &missing)?;
        let sent = self.cloud.store_weights(&agreement.weights, missing.clone(), tensors).await;
        sent.map_err(|s| self.explain(&s))?;
        tracing::info!(
            stages = missing.join(" "),
            "gave the cloud weights of stages that move to it"
        );
        Ok(())
    }

    async fn build(&self, target: &Target, head: Option<NamedTensors>) -> Result<Segment, String> {
        let (spec, split, id) = (self.spec.clone(), target.split, target.weights.clone());
        let built = self.pool.run(move || {
            let mut source: Box<dyn Weights> = match (id, head) {
                (WeightsId::Seed(seed), _) => Box::new(SeededWeights(seed)),
                (_, weights) => Box::new(LoadedWeights::new(weights.unwrap_or_default())),
            };
            Segment::build(&spec, 0..split, source.as_mut(), false)
        });
        built.await.map_err(|e| e.to_string())?.map_err(|e| format!("{}: {e}", target.weights))
    }

    fn explain(&self, status: &tonic::Status) -> String {
        explain(self.cloud.address(), status)
    }
}
