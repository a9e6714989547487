//! VGG after Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition"
//! (ICLR 2015), as torchvision has it without batch normalisation; VGG-16 is the paper's column D. Its
//! dropout is left out: a model is trained without, and deployed as it is.
//!
//! `conv1-1 → conv1-2 → pool1 → conv2-1 → … → pool5 → avgpool → fc1 → fc2 → fc3`; every stage can be a
//! cut.

use super::{
    FilterChain, Init, ModelFamily, ModelSpec, Port, StagePlan,
    blocks::{Dense, cut},
    conv::{AvgPool, ConvRelu, ConvShape, MaxPool, Window, check_maps},
    spec::sizes_in_range,
};

/// Sizes of a VGG.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VggSpec {
    /// Input `[channels, height, width]`; each group halves height and width.
    pub input: [usize; 3],
    /// Output channels of the 3×3 convolutions, group by group; a 2×2 max pooling follows each group.
    pub channels: Vec<Vec<usize>>,
    /// Widths of the dense layers before the logits: 4096, 4096.
    pub hidden: [usize; 2],
    /// Number of logits.
    pub classes: usize,
}

/// Height and width of the map that the dense layers see.
const POOLED: usize = 7;
const POOL: Window = Window { size: 2, stride: 2, padding: 0 };

impl ModelFamily for VggSpec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &self.input)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("logits", &[self.classes])]
    }

    fn check(&self) -> Result<(), String> {
        let channels = self.channels.iter().flatten();
        let sizes = self.input.iter().chain(channels).chain(&self.hidden).copied();
        sizes_in_range(sizes.chain([self.classes]))?;
        check_maps(&self.stages())
    }

    fn stages(&self) -> Vec<StagePlan> {
        let mut plans = Vec::new();
        let mut map = self.input;
        // Where torchvision's `features` has the next layer; a convolution and its ReLU are two.
        let mut index = 0;
        for (group, channels) in self.channels.iter().enumerate() {
            for (i, &out) in channels.iter().enumerate() {
                let shape = ConvShape::new([map[0], out], Window::same(3));
                let flops = shape.flops(map);
                map = shape.output(map);
                let stage = format!("conv{}-{}", group + 1, i + 1);
                let name = format!("features.{index}");
                plans.push(StagePlan::new(stage, cut(&map), flops, move |params| {
                    ConvRelu::new(&name, shape, [shape.kaiming(), Init::Zeros], params)
                }));
                index += 2;
            }
            map = POOL.pooled(map);
            let stage = format!("pool{}", group + 1);
            plans.push(StagePlan::new(stage, cut(&map), 0, |_| Ok(MaxPool::new(POOL))));
            index += 1;
        }
        let map = [map[0], POOLED, POOLED];
        plans.push(StagePlan::new("avgpool", cut(&map), 0, |_| Ok(AvgPool::new(POOLED))));
        let widths = [map.iter().product(), self.hidden[0], self.hidden[1], self.classes];
        for (i, index) in [0, 3, 6].into_iter().enumerate() {
            let pair = [widths[i], widths[i + 1]];
            let (stage, name) = (format!("fc{}", i + 1), format!("classifier.{index}"));
            let flops = 2 * pair[0] * pair[1];
            plans.push(StagePlan::new(stage, cut(&[pair[1]]), flops, move |params| {
                let init = [Init::Normal(0.01), Init::Zeros];
                Dense::with_init(&name, pair, i < 2, init, params)
            }));
        }
        plans
    }

    fn filter_chain(&self) -> Option<FilterChain> {
        let mut layers = Vec::new();
        let mut index = 0;
        for group in &self.channels {
            for _ in group {
                layers.push(format!("features.{index}"));
                index += 2;
            }
            index += 1;
        }
        let spec = self.clone();
        Some(FilterChain::plain(&layers, "classifier.0", POOLED * POOLED, move |widths| {
            let mut widths = widths.iter().copied();
            let groups = spec.channels.iter();
            let channels = groups.map(|group| widths.by_ref().take(group.len()).collect());
            ModelSpec::Vgg(VggSpec { channels: channels.collect(), ..spec.clone() })
        }))
    }
}
