//! ResNet after He et al., "Deep residual learning for image recognition" (CVPR 2016), as torchvision
//! has it: ResNet-18 and -34 of basic blocks, ResNet-50 and deeper of bottlenecks, whose stride is at the
//! 3×3 convolution ("v1.5").
//!
//! `stem → maxpool → layer1-0 → layer1-1 → … → layer4-1 → fc`; every stage can be a cut. A residual
//! branch never crosses one: a block is a stage. From `layer2` on, each layer halves the map.

use burn::module::Module;

use crate::kernels::{Rectify, Then};

use super::{
    Activation, Block, Init, ModelError, ModelFamily, Params, Pass, Port, StagePlan, Value,
    batch_norm::ConvNorm,
    blocks::{cut, rank4},
    conv::{ConvShape, Map, MaxPool, MeanDense, Window, check_maps},
    spec::sizes_in_range,
};

/// Sizes of a ResNet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResnetSpec {
    /// Input `[channels, height, width]`.
    pub input: [usize; 3],
    pub block: ResnetBlock,
    /// Blocks of each layer.
    pub layers: Vec<usize>,
    /// Channels of the stem and of the first layer, 64 in the paper; each layer has twice as many.
    pub width: usize,
    /// Number of logits.
    pub classes: usize,
}

/// What a block is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResnetBlock {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, and 1×1 to four times the channels.
    Bottleneck,
}

impl ModelFamily for ResnetSpec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &self.input)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("logits", &[self.classes])]
    }

    fn check(&self) -> Result<(), String> {
        let sizes = self.input.iter().chain(&self.layers).copied();
        sizes_in_range(sizes.chain([self.width, self.classes]))?;
        let (layers, blocks) = (self.layers.len(), self.layers.iter().sum::<usize>());
        if layers == 0 || layers > 8 || blocks > 1000 {
            return Err(format!("layers = {:?}: 1 to 8 layers, 1000 blocks", self.layers));
        }
        check_maps(&self.stages())
    }

    fn stages(&self) -> Vec<StagePlan> {
        let mut plans = Vec::new();
        let shape = ConvShape::new([self.input[0], self.width], Window::same(7).stride(2));
        let mut map = shape.output(self.input);
        plans.push(StagePlan::new("stem", cut(&map), shape.flops(self.input), move |params| {
            Ok(Stem { conv: ConvNorm::new(["conv1", "bn1"], shape, params)? })
        }));
        let window = Window::same(3).stride(2);
        map = window.pooled(map);
        plans.push(StagePlan::new("maxpool", cut(&map), 0, move |_| Ok(MaxPool::new(window))));
        for (layer, &blocks) in self.layers.iter().enumerate() {
            for i in 0..blocks {
                let stride = if layer > 0 && i == 0 { 2 } else { 1 };
                let shape = BlockShape::new(self.block, map[0], self.width << layer, stride);
                let flops = shape.flops(map);
                map = shape.output(map);
                let (stage, name) =
                    (format!("layer{}-{i}", layer + 1), format!("layer{}.{i}", layer + 1));
                plans.push(StagePlan::new(stage, cut(&map), flops, move |params| {
                    Residual::new(&name, &shape, params)
                }));
            }
        }
        let features = [map[0], self.classes];
        let flops = 2 * features[0] * features[1];
        plans.push(StagePlan::new("fc", cut(&[self.classes]), flops, move |params| {
            MeanDense::new("fc", features, [Init::FanIn(features[0]); 2], params)
        }));
        plans
    }
}

/// Convolution 7×7, stride 2, normalised, ReLU.
/// `[batch, channels, height, width]` → `[batch, width, height / 2, width / 2]`
#[derive(Module, Debug)]
struct Stem {
    conv: ConvNorm,
}

impl Block for Stem {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        Ok(Value::R4(self.conv.forward(x, Rectify::Relu, pass)?).into())
    }
}

/// The convolutions of a block.
struct BlockShape {
    convs: Vec<ConvShape>,
    /// Of the identity, where the block changes the map's shape.
    downsample: Option<ConvShape>,
}

impl BlockShape {
    fn new(block: ResnetBlock, input: usize, width: usize, stride: usize) -> Self {
        let conv =
            |channels, size, stride| ConvShape::new(channels, Window::same(size).stride(stride));
        let (output, convs) = match block {
            ResnetBlock::Basic => {
                (width, vec![conv([input, width], 3, stride), conv([width, width], 3, 1)])
            }
            ResnetBlock::Bottleneck => {
                let output = 4 * width;
                let middle = conv([width, width], 3, stride);
                (output, vec![conv([input, width], 1, 1), middle, conv([width, output], 1, 1)])
            }
        };
        let changes = stride != 1 || input != output;
        Self { convs, downsample: changes.then(|| conv([input, output], 1, stride)) }
    }

    fn output(&self, map: Map) -> Map {
        self.convs.iter().fold(map, |map, conv| conv.output(map))
    }

    fn flops(&self, map: Map) -> usize {
        let mut total = self.downsample.map_or(0, |conv| conv.flops(map));
        let mut map = map;
        for conv in &self.convs {
            total = total.saturating_add(conv.flops(map));
            map = conv.output(map);
        }
        total
    }
}

/// `relu(convolutions(x) + identity(x))`, ReLU between the convolutions.
/// `[batch, in, height, width]` → `[batch, out, height / stride, width / stride]`
#[derive(Module, Debug)]
struct Residual {
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Residual {
    fn new(name: &str, shape: &BlockShape, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let convs = shape.convs.iter().enumerate().map(|(i, &conv)| {
            let names = [format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1)];
            ConvNorm::new([&names[0], &names[1]], conv, params)
        });
        let convs = convs.collect::<Result<_, _>>()?;
        let names = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
        let downsample = shape.downsample.map(|s| ConvNorm::new([&names[0], &names[1]], s, params));
        Ok(Self { convs, downsample: downsample.transpose()? })
    }
}

impl Block for Residual {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        let identity = match &self.downsample {
            Some(conv) => conv.forward(x.clone(), Rectify::Not, pass)?,
            None => x.clone(),
        };
        let (last, others) = self.convs.split_last().expect("a block has convolutions");
        let branch = others.iter().try_fold(x, |x, conv| conv.forward(x, Rectify::Relu, pass))?;
        let then = Then { addend: Some(identity), rectify: Rectify::Relu };
        Ok(Value::R4(last.forward(branch, then, pass)?).into())
    }
}
