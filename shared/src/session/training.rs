//! What both halves must do alike in every step of a run.

use serde::{Deserialize, Serialize};

use crate::model::{LossKind, OptimizerSpec};

/// Loss and optimiser; fixed for the life of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    pub loss: LossKind,
    pub optimizer: OptimizerSpec,
}

impl TrainingSpec {
    /// The spec as JSON with a fixed field order, as the peers compare it.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("a spec is plain data")
    }

    /// Reads [`TrainingSpec::canonical`], and refuses constants out of range.
    pub fn parse(text: &str) -> Result<Self, String> {
        let spec: Self = serde_json::from_str(text).map_err(|e| format!("training spec: {e}"))?;
        spec.optimizer.check().map_err(|e| format!("training spec: {e}"))?;
        Ok(spec)
    }
}
