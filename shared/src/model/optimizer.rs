//! The optimiser of both halves, from burn; each stage carries its own state.

use burn::optim::{
    AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig,
    momentum::MomentumConfig,
};

/// Optimiser and its constants, as in `torch.optim`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerSpec {
    /// SGD; `momentum` 0 is plain SGD. No dampening, as PyTorch's default.
    Sgd {
        learning_rate: f64,
        momentum: f64,
        /// Times the weights, added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam (Kingma & Ba 2015), with the weight decay of SGD.
    Adam {
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with a weight decay of its own (Loshchilov & Hutter 2019): the weights shrink by
    /// `learning_rate` times it, whatever the gradient is.
    AdamW { learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64, weight_decay: f64 },
}

impl OptimizerSpec {
    /// Before its schedule.
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::AdamW { learning_rate, .. } => *learning_rate,
        }
    }

    pub fn set_learning_rate(&mut self, rate: f64) {
        match self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::AdamW { learning_rate, .. } => *learning_rate = rate,
        }
    }

    pub(super) fn init(&self) -> ModuleOptimizer {
        let decay = |penalty: f64| {
            let config = WeightDecayConfig { penalty: penalty as f32 };
            (penalty > 0.0).then_some(config)
        };
        match *self {
            Self::Sgd { momentum, weight_decay, .. } => {
                let moved = MomentumConfig::new().with_momentum(momentum).with_dampening(0.0);
                SgdConfig::new()
                    .with_momentum((momentum > 0.0).then_some(moved))
                    .with_weight_decay(decay(weight_decay))
                    .init()
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay, .. } => AdamConfig::new()
                .with_beta_1(beta1 as f32)
                .with_beta_2(beta2 as f32)
                .with_epsilon(epsilon as f32)
                .with_weight_decay(decay(weight_decay))
                .init(),
            Self::AdamW { beta1, beta2, epsilon, weight_decay, .. } => AdamWConfig::new()
                .with_beta_1(beta1 as f32)
                .with_beta_2(beta2 as f32)
                .with_epsilon(epsilon as f32)
                .with_weight_decay(weight_decay as f32)
                .init(),
        }
    }

    /// `key: problem` of the first constant out of range.
    pub fn check(&self) -> Result<(), String> {
        let in_range = |key: &str, value: f64, low: f64, high: f64| {
            if value >= low && value < high {
                return Ok(());
            }
            Err(format!("{key} = {value} is out of range ({low} <= {key} < {high})"))
        };
        in_range("learning_rate", self.learning_rate(), 1e-9, 10.0)?;
        match *self {
            Self::Sgd { momentum, weight_decay, .. } => {
                in_range("momentum", momentum, 0.0, 1.0)?;
                in_range("weight_decay", weight_decay, 0.0, 1.0)
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay, .. }
            | Self::AdamW { beta1, beta2, epsilon, weight_decay, .. } => {
                in_range("beta1", beta1, 0.0, 1.0)?;
                in_range("beta2", beta2, 0.0, 1.0)?;
                in_range("epsilon", epsilon, 1e-12, 1.0)?;
                in_range("weight_decay", weight_decay, 0.0, 1.0)
            }
        }
    }
}
