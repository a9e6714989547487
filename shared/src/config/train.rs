//! `[train]`: what a run is, and how it is kept going.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::auto::{self, AUTO};
use crate::{
    model::{BottleneckSpec, LoraSpec, LossKind, OptimizerSpec},
    privacy::PrivacySpec,
    session::{Schedule, Topology, TrainingSpec},
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    pub epochs: u64,
    pub batch_size: usize,
    pub loss: LossKind,
    pub micro_batches: MicroBatches,
    /// Longest norm of the gradient of the whole model; none: as long as it is.
    pub clip_norm: Option<f64>,
    pub optimizer: OptimizerSpec,
    pub schedule: Schedule,
    pub topology: Topology,
    /// Trains LoRA adapters only; none: all weights.
    pub lora: Option<LoraSpec>,
    /// Trains a bottleneck at the cut only; not a key: `edge-node bottleneck train` sets it.
    #[serde(skip)]
    pub bottleneck: Option<BottleneckSpec>,
    /// What is done to activations before they are sent; none: nothing.
    pub privacy: Option<PrivacySpec>,
    /// Share of each weight matrix, its smallest weights, that is zero from the first step on.
    pub sparsity: f64,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept by each node, of those that both hold.
    pub keep_checkpoints: usize,
    /// How long one step may take before the connection counts as lost, s.
    pub step_timeout_s: u64,
    /// How long to try to reach a lost cloud before giving up, s.
    pub reconnect_timeout_s: u64,
}

/// Parts that the batch of a step is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicroBatches {
    /// Chosen by what the first step takes.
    Auto,
    Fixed(u32),
}

impl TrainConfig {
    /// What both halves must do alike.
    pub fn spec(&self) -> TrainingSpec {
        let Self { loss, clip_norm, optimizer, lora, bottleneck, privacy, sparsity, .. } =
            self.clone();
        TrainingSpec { loss, clip_norm, optimizer, lora, bottleneck, privacy, sparsity }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 40,
            batch_size: 32,
            loss: LossKind::CrossEntropy,
            micro_batches: MicroBatches::Fixed(1),
            clip_norm: None,
            optimizer: OptimizerSpec::Adam {
                learning_rate: 0.001,
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.0,
            },
            schedule: Schedule::default(),
            topology: Topology::default(),
            lora: None,
            bottleneck: None,
            privacy: None,
            sparsity: 0.0,
            checkpoint_every: 100,
            keep_checkpoints: 3,
            step_timeout_s: 10,
            reconnect_timeout_s: 60,
        }
    }
}

impl fmt::Display for MicroBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Fixed(n) => write!(f, "{n}"),
        }
    }
}

impl Serialize for MicroBatches {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fixed = match self {
            Self::Auto => None,
            Self::Fixed(n) => Some(n),
        };
        auto::serialize(fixed, serializer)
    }
}

impl<'de> Deserialize<'de> for MicroBatches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(auto::deserialize(deserializer, "a number")?.map_or(Self::Auto, Self::Fixed))
    }
}
