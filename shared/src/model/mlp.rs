//! Multi-layer perceptron: dense layers with ReLU, the last one without.

use super::{ModelFamily, Port, StagePlan, blocks::dense_stack, spec::sizes_in_range};

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
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &self.input)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("logits", &[self.classes])]
    }

    fn check(&self) -> Result<(), String> {
        let sizes = self.input.iter().chain(&self.hidden).copied();
        sizes_in_range(sizes.chain([self.classes]))
    }

    fn stages(&self) -> Vec<StagePlan> {
        dense_stack(self.input.iter().product(), &self.hidden, self.classes)
    }
}
