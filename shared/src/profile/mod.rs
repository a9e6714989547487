//! What a model costs this machine: the time of each stage, and of each codec, measured.
//!
//! A planner adds these up: Neurosurgeon (Kang et al., ASPLOS 2017) predicts layers by regression from
//! their sizes; here the layers themselves run, on this machine, in the order and the memory that they
//! will be served in. Both nodes measure alike, each for itself.

mod codecs;
mod input;
mod measure;
mod spread;

use serde::{Deserialize, Serialize};

pub use self::{
    codecs::{CodecTime, decode_own},
    input::sample_input,
    measure::{Request, measure},
    spread::Spread,
};

/// What one machine takes for the stages of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComputeProfile {
    /// The processor, as the system names it.
    pub device: String,
    /// Threads that share each operation of a request.
    pub threads: usize,
    pub stages: Vec<StageTime>,
    /// For each split point before the last, 0 first: what each codec does with what crosses there.
    pub cuts: Vec<Vec<CodecTime>>,
}

/// One stage, for one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    pub name: String,
    pub forward: Spread,
    /// Forward and backward of a training step; none if it was not asked for.
    pub training: Option<TrainingTime>,
}

/// A stage's share of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainingTime {
    /// Forward in training mode, which keeps what the backward pass needs.
    pub forward: Spread,
    pub backward: Spread,
}

impl ComputeProfile {
    /// Time of these stages one after the other, ms.
    pub fn forward_ms(&self, range: std::ops::Range<usize>) -> f64 {
        self.stages[range].iter().map(|s| s.forward.median_ms).sum()
    }

    /// The same for a training step: forward, then backward, ms. None if it was not measured.
    pub fn training_ms(&self, range: std::ops::Range<usize>) -> Option<(f64, f64)> {
        self.stages[range].iter().try_fold((0.0, 0.0), |(forward, backward), stage| {
            let time = stage.training?;
            Some((forward + time.forward.median_ms, backward + time.backward.median_ms))
        })
    }
}

/// The processor's name; the architecture if the system does not say.
pub fn device_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = |key: &str| {
        let line = info.lines().find(|l| l.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    // x86 has the first, boards with an ARM processor the second.
    let name = named("model name").or_else(|| named("Model")).filter(|n| !n.is_empty());
    name.unwrap_or_else(|| std::env::consts::ARCH.into())
}
