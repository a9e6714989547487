//! The declarative model: what the config says, and the plan of stages it becomes.

use burn::tensor::Device;
use sha2::{Digest, Sha256};

use super::{LenetSpec, MlpSpec, ModelError, Stage, Weights};

type Build =
    dyn Fn(&str, &mut dyn Weights, &Device) -> Result<Box<dyn Stage>, ModelError> + Send + Sync;

/// A stage that is not built yet: nothing is allocated until [`StagePlan::build`].
pub struct StagePlan {
    pub name: String,
    build: Box<Build>,
}

impl StagePlan {
    pub fn new(
        name: String,
        build: impl Fn(&str, &mut dyn Weights, &Device) -> Result<Box<dyn Stage>, ModelError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { name, build: Box::new(build) }
    }

    pub fn build(
        &self,
        weights: &mut dyn Weights,
        device: &Device,
    ) -> Result<Box<dyn Stage>, ModelError> {
        (self.build)(&self.name, weights, device)
    }
}

/// What a model file provides.
pub trait ModelFamily {
    /// Shape of one input, without the batch.
    fn input_shape(&self) -> Vec<usize>;
    /// Shape of one output, without the batch.
    fn output_shape(&self) -> Vec<usize>;
    /// A reason why these sizes cannot be built.
    fn check(&self) -> Result<(), String>;
    /// All stages in order.
    fn stages(&self) -> Vec<StagePlan>;
}

/// A model by family and sizes; a new family is one file and one variant here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum ModelSpec {
    Lenet(LenetSpec),
    Mlp(MlpSpec),
}

impl ModelSpec {
    fn family(&self) -> &dyn ModelFamily {
        match self {
            ModelSpec::Lenet(spec) => spec,
            ModelSpec::Mlp(spec) => spec,
        }
    }

    pub fn family_name(&self) -> &'static str {
        match self {
            ModelSpec::Lenet(_) => "lenet",
            ModelSpec::Mlp(_) => "mlp",
        }
    }

    pub fn input_shape(&self) -> Vec<usize> {
        self.family().input_shape()
    }

    pub fn output_shape(&self) -> Vec<usize> {
        self.family().output_shape()
    }

    pub fn stages(&self) -> Vec<StagePlan> {
        self.family().stages()
    }

    pub fn stage_names(&self) -> Vec<String> {
        self.stages().into_iter().map(|p| p.name).collect()
    }

    /// N: the split point may be 0..=N.
    pub fn stage_count(&self) -> usize {
        self.stages().len()
    }

    /// Refuses sizes that no stage could be built for.
    pub fn check(&self) -> Result<(), String> {
        let sizes = self.input_shape().into_iter().chain(self.output_shape());
        let widths = match self {
            ModelSpec::Lenet(s) => s.channels.iter().chain(&s.hidden).copied().collect::<Vec<_>>(),
            ModelSpec::Mlp(s) => s.hidden.clone(),
        };
        if let Some(bad) = sizes.chain(widths).find(|&n| n == 0 || n > 1 << 20) {
            return Err(format!("size {bad} is out of range (1..=1048576)"));
        }
        self.family().check()
    }

    /// Refuses a split point past the last stage.
    pub fn check_split(&self, split: usize) -> Result<(), ModelError> {
        let stages = self.stage_count();
        if split <= stages {
            return Ok(());
        }
        Err(ModelError::Split { split, stages, model: self.family_name() })
    }

    /// The spec as JSON with a fixed field order: what the handshake compares.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("a spec is plain data")
    }

    /// SHA-256 of [`ModelSpec::canonical`], in hex.
    pub fn hash(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.canonical().as_bytes()).into();
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}
