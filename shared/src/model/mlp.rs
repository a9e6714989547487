//! Multi-layer perceptron: dense layers with ReLU, the last one without.

use super::{
    lenet::dense_stack,
    spec::{ModelFamily, StagePlan},
};

/// Sizes of an MLP.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpSpec {
    /// Input shape without the batch; flattened by the first layer.
    pub input: [usize; 3],
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Number of logits.
    pub classes: usize,
}

impl ModelFamily for MlpSpec {
    fn input_shape(&self) -> Vec<usize> {
        self.input.to_vec()
    }

    fn output_shape(&self) -> Vec<usize> {
        vec![self.classes]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn stages(&self) -> Vec<StagePlan> {
        dense_stack(self.input.iter().product(), &self.hidden, self.classes)
    }
}
