//! What all members of a group must do alike.

use serde::{Deserialize, Serialize};

use super::{Schedule, Topology, TrainingSpec};

/// Fixed for the life of a group's run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    pub training: TrainingSpec,
    pub topology: Topology,
    /// A step of it is a round.
    pub schedule: Schedule,
    pub batch_size: u64,
    /// Seed of which edges take part in a round.
    pub seed: u64,
}

impl GroupSpec {
    /// The spec as JSON with a fixed field order, as the nodes compare it.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// Reads [`GroupSpec::canonical`], and refuses values out of range and what a group cannot do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spec: Self = serde_json::from_str(text).map_err(|e| format!("group spec: {e}"))?;
        TrainingSpec::parse(&spec.training.canonical())?;
        Topology::parse(&spec.topology.canonical())?;
        if !spec.topology.kind.is_group() {
            return Err("group spec: kind: the topology is one of a single edge".into());
        }
        spec.training
            .check_group()
            .map_err(|(key, problem)| format!("group spec: {key}: {problem}"))?;
        spec.schedule.check().map_err(|(key, problem)| format!("group spec: {key}: {problem}"))?;
        Ok(spec)
    }

    /// The learning rate of a round.
    pub fn learning_rate(&self, round: u64, rounds: u64) -> f64 {
        self.training.optimizer.learning_rate() * self.schedule.factor(round, rounds)
    }
}
