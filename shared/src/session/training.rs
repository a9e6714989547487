//! What both halves must do alike in every step of a run.

use serde::{Deserialize, Serialize};

use crate::{
    model::{BottleneckSpec, LoraSpec, LossKind, OptimizerSpec},
    privacy::PrivacySpec,
};

/// Loss, optimiser and what is trained; fixed for the life of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    pub loss: LossKind,
    pub optimizer: OptimizerSpec,
    /// Longest norm of the gradient over both halves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Trains adapters only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSpec>,
    /// Trains an encoder and a decoder at the cut only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bottleneck: Option<BottleneckSpec>,
    /// What the edge does to activations before it sends them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacySpec>,
    /// Share of each weight matrix that stays zero.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sparsity: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
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
        spec.check_extras().map_err(|(key, problem)| format!("training spec: {key}: {problem}"))?;
        Ok(spec)
    }

    /// The key and the problem of what several edges cannot do together.
    pub fn check_group(&self) -> Result<(), (&'static str, String)> {
        let text = "several edges cannot do this yet: leave it out, or set train.topology.kind";
        if self.clip_norm.is_some() {
            return Err(("clip_norm", text.into()));
        }
        if self.lora.is_some() {
            return Err(("lora", text.into()));
        }
        if self.privacy.is_some() {
            return Err(("privacy", text.into()));
        }
        match self.sparsity > 0.0 {
            true => Err(("sparsity", text.into())),
            false => Ok(()),
        }
    }

    /// The key and the problem of what else is out of range.
    pub fn check_extras(&self) -> Result<(), (&'static str, String)> {
        if let Some(most) = self.clip_norm.filter(|most| !(1e-9..=1e9).contains(most)) {
            return Err(("clip_norm", format!("{most} is out of range; allowed: 1e-9 to 1e9")));
        }
        if let Some(lora) = &self.lora {
            lora.check().map_err(|problem| ("lora", problem))?;
        }
        if let Some(bottleneck) = &self.bottleneck {
            bottleneck.check().map_err(|problem| ("bottleneck", problem))?;
        }
        if let Some(privacy) = &self.privacy {
            privacy.check().map_err(|problem| ("privacy", problem))?;
        }
        if !(0.0..1.0).contains(&self.sparsity) {
            let problem = format!("{} is out of range; allowed: 0 to less than 1", self.sparsity);
            return Err(("sparsity", problem));
        }
        if self.lora.is_some() && self.sparsity > 0.0 {
            return Err(("sparsity", "adapters would fill its zeros: leave out train.lora".into()));
        }
        Ok(())
    }
}
