//! Makes deployments: brings the weights where they are needed, agrees with the cloud, builds.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cleave_shared::{
    checkpoint::{Library, WeightsId},
    compute::{ComputePool, Machine},
    config::{Config, Fallback},
    data::Normalisation,
    model::{Exit, Segment, StageShelf},
    wire::v1::Agreement,
};
use tonic::Code;

use super::{Deployment, Pointer, Target};
use crate::{
    bottleneck::activation_codec,
    cloud::{CloudClient, explain},
    exits,
    train::RunRecord,
};

/// Handshakes to learn the offset of the cloud's clock from; see `cloud::clock`.
const CLOCK_SAMPLES: usize = 5;

/// Loads that may wait.
const LOADS: usize = 16;

/// Why the cloud has not agreed.
enum Unbound {
    /// It is not there.
    Absent(String),
    Refused(String),
}

impl From<Unbound> for String {
    fn from(unbound: Unbound) -> Self {
        match unbound {
            Unbound::Absent(text) | Unbound::Refused(text) => text,
        }
    }
}

impl From<String> for Unbound {
    fn from(text: String) -> Self {
        Unbound::Refused(text)
    }
}

/// What every deployment of this process has in common.
pub struct Deployer {
    config: Config,
    library: Arc<Library>,
    /// Heads of other cuts share their layers.
    shelf: Arc<StageShelf>,
    pool: ComputePool,
    cloud: CloudClient,
    /// Whether it was said that what is deployed is of another model.
    passed_over: AtomicBool,
}

impl Deployer {
    /// Opens the weight files; the error is one line.
    pub fn new(config: &Config, cloud: CloudClient) -> Result<Self, String> {
        let store = Arc::new(config.runs.open("edge")?);
        let library = config.library(store)?;
        let shelf = StageShelf::new(config.model.clone(), config.quantize.weights);
        let (library, shelf) = (Arc::new(library), Arc::new(shelf));
        // Requests that are being answered do not wait for layers that are loaded.
        let pool = ComputePool::new(1, LOADS, Machine::new(1));
        let passed_over = AtomicBool::default();
        Ok(Self { config: config.clone(), library, shelf, pool, cloud, passed_over })
    }

    /// See [`CloudClient::lost`].
    pub async fn lost(&self) {
        self.cloud.lost().await;
    }

    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// See [`Library::initial`].
    pub fn initial(&self, seed: u64) -> WeightsId {
        self.library.initial(seed)
    }

    /// The split of the configuration, and the weights that were trained last.
    pub fn target(&self, config: &Config) -> Result<Target, String> {
        let pointer = Pointer::read(&config.runs.dir).map_err(|e| e.to_string())?;
        let weights = match pointer {
            Some(p) if p.spec_hash == self.config.model.hash() => p.weights(),
            // Trained weights of another model are not for this one.
            other => {
                let own = self.initial(config.seed);
                if let Some(Pointer { run, .. }) = other
                    && !self.passed_over.swap(true, Ordering::Relaxed)
                {
                    tracing::warn!(
                        run, weights = %own,
                        "the run that is deployed is of another model, and left out; train this model, or name that one \
                         in [model]"
                    );
                }
                own
            }
        };
        Ok(Target { split: config.split(), weights, codec: config.codec.activation.clone() })
    }

    /// What both nodes have to agree on for this target.
    fn agreement(&self, target: &Target, codec: &str) -> Agreement {
        let agreement = self.config.agreement(target.split, &target.weights.to_string());
        Agreement { activation_codec: codec.into(), ..agreement }
    }

    /// Makes the deployment of a target; the error is one line.
    pub async fn deploy(&self, target: Target) -> Result<Deployment, String> {
        self.config.model.check_split(target.split).map_err(|e| e.to_string())?;
        self.bring_head(&target).await?;
        let codec = activation_codec(&self.config, &target);
        let codec = codec.map_err(|problem| format!("codec.activation: {problem}"))?;
        let mut agreement = self.agreement(&target, codec.name());
        let exits = self.exits(&target);
        let agreed = match target.split < self.config.model.stage_count() {
            true => self.bind(&target, &agreement).await,
            false => Ok(()),
        };
        // Without a cloud, exits or the whole model answer alone until there is one.
        let alone = (!exits.is_empty() && self.config.exits.when_offline)
            || self.config.edge.fallback == Fallback::Whole;
        let bound = match agreed {
            Err(Unbound::Absent(_)) if alone => false,
            outcome => outcome.map(|()| true)?,
        };
        agreement.spec.clear();
        let head = self.build(&target).await?;
        if let WeightsId::Run { run, step } = &target.weights {
            self.library.store().pin(run, *step).map_err(|e| e.to_string())?;
        }
        let stages = self.config.model.stage_count();
        let normalisation = self.normalisation(&target)?;
        let (head, bound) = (Arc::new(head), bound.into());
        Ok(Deployment { target, stages, head, exits, codec, agreement, bound, normalisation })
    }

    /// Asks the cloud about a deployment that was made without it.
    pub async fn agree(&self, deployment: &Deployment) -> Result<(), String> {
        let agreement = self.agreement(&deployment.target, deployment.codec.name());
        self.bind(&deployment.target, &agreement).await?;
        deployment.bound.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The exits of a target. What is wrong with them is no reason to serve nothing.
    fn exits(&self, target: &Target) -> Arc<[Exit]> {
        if !self.config.exits.enabled {
            return Arc::default();
        }
        match exits::stored(&self.config, &target.weights, target.split) {
            Ok(exits) => exits.into(),
            Err(problem) => {
                tracing::warn!("served without exits: {problem}");
                Arc::default()
            }
        }
    }

    /// What was done to the data that these weights were trained on.
    fn normalisation(&self, target: &Target) -> Result<Vec<Normalisation>, String> {
        let WeightsId::Run { run, .. } = &target.weights else { return Ok(Vec::new()) };
        match RunRecord::read(&self.config.runs.dir, run)?.and_then(|record| record.prepared) {
            Some(prepared) => Ok(prepared.manifest(&self.config.runs.dir)?.normalisation),
            None => Ok(Vec::new()),
        }
    }

    /// Fetches weights of head stages that only the cloud holds.
    pub async fn bring_head(&self, target: &Target) -> Result<(), String> {
        let WeightsId::Run { run, step } = &target.weights else { return Ok(()) };
        let stages = &self.config.model.stage_names()[..target.split];
        let absent = self.library.missing(&target.weights, stages).map_err(|e| e.to_string())?;
        if !absent.is_empty() {
            let id = target.weights.to_string();
            let fetched = self.cloud.fetch_weights(&id, absent.clone()).await;
            let (fetched, adapters) = fetched.map_err(|s| self.explain(&s))?;
            tracing::info!(
                stages = absent.join(" "),
                "fetched weights of stages that move to the edge"
            );
            let store = self.library.store();
            store.add(run, *step, &absent, fetched, adapters).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// The handshake; stages that the cloud lacks are given to it.
    async fn bind(&self, target: &Target, agreement: &Agreement) -> Result<(), Unbound> {
        let bound = self.cloud.bind(agreement).await.map_err(|status| {
            let text = self.explain(&status);
            match status.code() {
                Code::Unavailable => Unbound::Absent(text),
                _ => Unbound::Refused(text),
            }
        })?;
        if !bound.missing_stages.is_empty() {
            self.give(target, agreement, bound.missing_stages).await?;
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
        let nowhere = self.library.missing(&target.weights, &missing).map_err(|e| e.to_string())?;
        if !nowhere.is_empty() {
            let (id, stages) = (&target.weights, nowhere.join(", "));
            return Err(format!(
                "{id}: neither edge nor cloud has the weights of {stages}; train again, or bring \
                 back the cloud's runs folder"
            ));
        }
        let store = self.library.store();
        let tensors = store.export(run, *step, &missing).map_err(|e| e.to_string())?;
        let adapters = store.adapters(run, *step).map_err(|e| e.to_string())?;
        let (id, stages) = (&agreement.weights, missing.clone());
        let sent = self.cloud.store_weights(id, stages, tensors, adapters).await;
        sent.map_err(|s| self.explain(&s))?;
        tracing::info!(
            stages = missing.join(" "),
            "gave the cloud weights of stages that move to it"
        );
        Ok(())
    }

    async fn build(&self, target: &Target) -> Result<Segment, String> {
        let (library, shelf, target) = (self.library.clone(), self.shelf.clone(), target.clone());
        let built = self.pool.run_patiently(move || {
            let Target { split, weights, .. } = target;
            let refuse = |e| format!("{weights}: {e}");
            let partial = shelf.take(&weights.to_string(), 0..split).map_err(refuse)?;
            let moving = partial.missing();
            let mut source = library.source(&weights, &moving).map_err(|e| e.to_string())?;
            tracing::debug!(split, layers = moving.join(" "), "loading the layers that move");
            partial.load(source.as_mut()).map_err(refuse)
        });
        built.await.map_err(|e| e.to_string())?
    }

    fn explain(&self, status: &tonic::Status) -> String {
        explain(self.cloud.address(), status)
    }
}
