//! What the edge serves: one split of one set of weights, agreed with the cloud.
//!
//! A deployment is immutable. To move the split point or to take new weights, another one is made
//! beside it and takes its place; requests that have begun finish with the one they began with.

mod deployer;
mod pointer;
mod ready;
mod run;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use cleave_shared::{
    checkpoint::WeightsId,
    codec::SharedCodec,
    data::Normalisation,
    model::{Exit, Segment},
    wire::{NamedTensors, v1::Agreement},
};

pub use self::{deployer::Deployer, pointer::Pointer, ready::Ready, run::deploy_run};

/// What to deploy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub split: usize,
    /// Of activations, by name.
    pub codec: String,
    pub weights: WeightsId,
}

/// A head that is ready, and what the cloud was told about it.
pub struct Deployment {
    pub target: Target,
    /// Number of stages: at this split point the edge needs no cloud.
    pub stages: usize,
    pub head: Arc<Segment>,
    /// In the order of their stages; none unless `exits.enabled`.
    pub exits: Arc<[Exit]>,
    /// Of activations.
    pub codec: SharedCodec,
    /// Sent with every request, so that the cloud keeps no state; without the spec, which the
    /// handshake has compared.
    pub agreement: Agreement,
    /// Whether the cloud has agreed; until it has, exits answer alone.
    pub bound: AtomicBool,
    /// What was done to the inputs that these weights were trained on.
    pub normalisation: Vec<Normalisation>,
}

impl Deployment {
    /// Whether the whole model runs here.
    pub fn is_whole(&self) -> bool {
        self.target.split == self.stages
    }

    /// Does to a request what was done to the samples that the weights were trained on.
    pub fn normalise(&self, inputs: NamedTensors) -> NamedTensors {
        let single = inputs.len() == 1;
        let one = |(name, tensor)| {
            let own = self.normalisation.iter().find(|n| single || n.input == name);
            let tensor = match own {
                Some(normalisation) => normalisation.apply(tensor),
                None => tensor,
            };
            (name, tensor)
        };
        inputs.into_iter().map(one).collect()
    }

    /// The model version that clients see: `seed-7`, `file-9f86d081` or `<run>-<step>`.
    pub fn version(&self) -> String {
        version(&self.target.weights)
    }
}

/// Where the edge keeps what it knows of these weights: the folder of their run.
pub fn folder_of(runs: &Path, weights: &WeightsId) -> PathBuf {
    let edge = runs.join("edge");
    match weights {
        WeightsId::Run { run, .. } => edge.join(run),
        other => edge.join(version(other)),
    }
}

/// See [`Deployment::version`].
pub fn version(weights: &WeightsId) -> String {
    match weights {
        WeightsId::Seed(seed) => format!("seed-{seed}"),
        WeightsId::File(fingerprint) => {
            format!("file-{}", &fingerprint[..8.min(fingerprint.len())])
        }
        WeightsId::Run { run, step } => format!("{run}-{step}"),
    }
}
