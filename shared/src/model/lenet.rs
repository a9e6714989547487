//! LeNet-class CNN after LeCun et al., "Gradient-based learning applied to document recognition"
//! (Proc. IEEE 1998), with ReLU and max pooling and 3×3 kernels, sized for small images.
//!
//! `conv1 → pool1 → conv2 → pool2 → … → fc1 → fc2 → … → logits`; every stage can be a cut.

use super::{
    FilterChain, ModelFamily, ModelSpec, Port, StagePlan,
    blocks::{cut, dense_stack},
    conv::{ConvRelu, ConvShape, MaxPool, Window},
    spec::sizes_in_range,
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

const POOL: Window = Window { size: 2, stride: 2, padding: 0 };

impl ModelFamily for LenetSpec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &self.input)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("logits", &[self.classes])]
    }

    fn check(&self) -> Result<(), String> {
        let sizes = self.input.iter().chain(&self.channels).chain(&self.hidden).copied();
        sizes_in_range(sizes.chain([self.classes]))?;
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
        let mut map = self.input;
        for (i, &out) in self.channels.iter().enumerate() {
            let name = format!("conv{}", i + 1);
            let shape = ConvShape::new([map[0], out], Window::same(3));
            let flops = shape.flops(map);
            map = shape.output(map);
            plans.push(StagePlan::new(name.clone(), cut(&map), flops, move |params| {
                ConvRelu::new(&name, shape, [shape.fan_in(); 2], params)
            }));
            map = POOL.pooled(map);
            let name = format!("pool{}", i + 1);
            plans.push(StagePlan::new(name, cut(&map), 0, |_| Ok(MaxPool::new(POOL))));
        }
        plans.extend(dense_stack(map.iter().product(), &self.hidden, self.classes));
        plans
    }

    fn filter_chain(&self) -> Option<FilterChain> {
        let layers: Vec<String> = (1..=self.channels.len()).map(|i| format!("conv{i}")).collect();
        let halvings = 1 << layers.len();
        let area = (self.input[1] / halvings) * (self.input[2] / halvings);
        let spec = self.clone();
        Some(FilterChain::plain(&layers, "fc1", area, move |channels| {
            ModelSpec::Lenet(LenetSpec { channels: channels.to_vec(), ..spec.clone() })
        }))
    }
}
