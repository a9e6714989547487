//! AlexNet after Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), as
//! torchvision has it. Its dropout is left out: a model is trained without, and deployed as it is.
//!
//! `conv1 → pool1 → conv2 → pool2 → conv3 → conv4 → conv5 → pool5 → avgpool → fc6 → fc7 → fc8`; every
//! stage can be a cut. The stages have the names of Caffe's layers, the parameters torchvision's.

use super::{
    FilterChain, ModelFamily, ModelSpec, Port, StagePlan,
    blocks::{Dense, cut},
    conv::{AvgPool, ConvRelu, ConvShape, MaxPool, Window, check_maps},
    spec::sizes_in_range,
};

/// Sizes of an AlexNet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlexnetSpec {
    /// Input `[channels, height, width]`, 63×63 or larger.
    pub input: [usize; 3],
    /// Output channels of the convolutions: 64, 192, 384, 256, 256 in the paper.
    pub channels: [usize; 5],
    /// Widths of the dense layers before the logits: 4096, 4096.
    pub hidden: [usize; 2],
    /// Number of logits.
    pub classes: usize,
}

/// Height and width of the map that the dense layers see.
const POOLED: usize = 6;
/// The convolutions' windows, their index in torchvision's `features`, and whether a pooling follows.
const LAYERS: [(Window, usize, bool); 5] = [
    (Window { size: 11, stride: 4, padding: 2 }, 0, true),
    (Window { size: 5, stride: 1, padding: 2 }, 3, true),
    (Window { size: 3, stride: 1, padding: 1 }, 6, false),
    (Window { size: 3, stride: 1, padding: 1 }, 8, false),
    (Window { size: 3, stride: 1, padding: 1 }, 10, true),
];
const POOL: Window = Window { size: 3, stride: 2, padding: 0 };

impl ModelFamily for AlexnetSpec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &self.input)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("logits", &[self.classes])]
    }

    fn check(&self) -> Result<(), String> {
        let sizes = self.input.iter().chain(&self.channels).chain(&self.hidden).copied();
        sizes_in_range(sizes.chain([self.classes]))?;
        check_maps(&self.stages())
    }

    fn stages(&self) -> Vec<StagePlan> {
        let mut plans = Vec::new();
        let mut map = self.input;
        for (i, (&(window, index, pooled), &out)) in LAYERS.iter().zip(&self.channels).enumerate() {
            let shape = ConvShape::new([map[0], out], window);
            let flops = shape.flops(map);
            map = shape.output(map);
            let (stage, name) = (format!("conv{}", i + 1), format!("features.{index}"));
            plans.push(StagePlan::new(stage, cut(&map), flops, move |params| {
                ConvRelu::new(&name, shape, [shape.fan_in(); 2], params)
            }));
            if pooled {
                map = POOL.pooled(map);
                let stage = format!("pool{}", i + 1);
                plans.push(StagePlan::new(stage, cut(&map), 0, |_| Ok(MaxPool::new(POOL))));
            }
        }
        let map = [map[0], POOLED, POOLED];
        plans.push(StagePlan::new("avgpool", cut(&map), 0, |_| Ok(AvgPool::new(POOLED))));
        let widths = [map.iter().product(), self.hidden[0], self.hidden[1], self.classes];
        for (i, index) in [1, 4, 6].into_iter().enumerate() {
            let pair = [widths[i], widths[i + 1]];
            let (stage, name) = (format!("fc{}", i + 6), format!("classifier.{index}"));
            let flops = 2 * pair[0] * pair[1];
            plans.push(StagePlan::new(stage, cut(&[pair[1]]), flops, move |params| {
                Dense::new(&name, pair, i < 2, params)
            }));
        }
        plans
    }

    fn filter_chain(&self) -> Option<FilterChain> {
        let layers: Vec<String> = LAYERS.iter().map(|(_, i, _)| format!("features.{i}")).collect();
        let spec = self.clone();
        Some(FilterChain::plain(&layers, "classifier.1", POOLED * POOLED, move |widths| {
            let mut channels = spec.channels;
            channels.copy_from_slice(widths);
            ModelSpec::Alexnet(AlexnetSpec { channels, ..spec.clone() })
        }))
    }
}
