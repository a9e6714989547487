//! LeNet-class CNN after LeCun et al., "Gradient-based learning applied to document recognition"
//! (Proc. IEEE 1998), with ReLU and max pooling and 3×3 kernels, sized for small images.
//!
//! `conv1 → pool1 → conv2 → pool2 → … → fc1 → fc2 → … → logits`; every stage can be a cut.

use super::{
    ModelError,
    blocks::{Conv3x3, Dense, MaxPool},
    spec::{ModelFamily, StagePlan},
    stage::BlockStage,
};

/// Sizes of a LeNet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LenetSpec {
    /// Input `[channels, height, width]`; height and width divisible by 2 for each convolution.
    pub input: [usize; 3],
    /// Output channels of each convolution, each followed by a 2×2 pooling.
    pub channels: Vec<usize>,
    /// Widths of the dense layers before the logits.
    pub hidden: Vec<usize>,
    /// Number of logits.
    pub classes: usize,
}

impl ModelFamily for LenetSpec {
    fn input_shape(&self) -> Vec<usize> {
        self.input.to_vec()
    }

    fn output_shape(&self) -> Vec<usize> {
        vec![self.classes]
    }

    fn check(&self) -> Result<(), String> {
        let factor = 1usize << self.channels.len().min(16);
        let [_, height, width] = self.input;
        if height % factor != 0 || width % factor != 0 {
            return Err(format!(
                "input {height}×{width} must be divisible by {factor} (one halving for each of \
                 `channels`)"
            ));
        }
        Ok(())
    }

    fn stages(&self) -> Vec<StagePlan> {
        let mut plans = Vec::new();
        let [mut channels, mut height, mut width] = self.input;
        for (i, &out) in self.channels.iter().enumerate() {
            let pair = [channels, out];
            plans.push(StagePlan::new(format!("conv{}", i + 1), move |name, weights, device| {
                Ok(BlockStage::boxed(name, Conv3x3::new(name, pair, weights, device)?))
            }));
            plans.push(StagePlan::new(format!("pool{}", i + 1), |name, _, _| {
                Ok::<_, ModelError>(BlockStage::boxed(name, MaxPool::new()))
            }));
            (channels, height, width) = (out, height / 2, width / 2);
        }
        plans.extend(dense_stack(channels * height * width, &self.hidden, self.classes));
        plans
    }
}

/// `fc1..fcN`: dense layers with ReLU, the last one (the logits) without.
pub(super) fn dense_stack(input: usize, hidden: &[usize], classes: usize) -> Vec<StagePlan> {
    let mut widths = vec![input];
    widths.extend(hidden);
    widths.push(classes);
    let last = widths.len() - 1;
    let plan = |i: usize| {
        let (pair, relu) = ([widths[i - 1], widths[i]], i != last);
        StagePlan::new(format!("fc{i}"), move |name, weights, device| {
            Ok(BlockStage::boxed(name, Dense::new(name, pair, relu, weights, device)?))
        })
    };
    (1..=last).map(plan).collect()
}
