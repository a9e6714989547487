//! MobileNetV2 after Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks" (CVPR 2018),
//! as torchvision has it. Its dropout is left out: a model is trained without, and deployed as it is.
//!
//! `features-0 → features-1 → … → features-18 → classifier`; every stage can be a cut. The first is a
//! convolution, the last before the classifier too, and those between are inverted residuals: between
//! two of them few channels cross.

use burn::module::Module;

use crate::kernels::{Rectify, Then};

use super::{
    Activation, Block, Init, ModelError, ModelFamily, Params, Pass, Port, StagePlan, Value,
    batch_norm::ConvNorm,
    blocks::{cut, rank4},
    conv::{ConvShape, Map, MeanDense, Window, check_maps},
    spec::sizes_in_range,
};

/// Sizes of a MobileNetV2.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MobilenetV2Spec {
    /// Input `[channels, height, width]`.
    pub input: [usize; 3],
    /// Factor of all channels, 1.0 in the paper; they are rounded to multiples of 8.
    pub width: f64,
    /// Rows of the paper's table 2, `[t, c, n, s]`: `n` blocks that widen `t`-fold inside and give `c`
    /// channels, the first with stride `s`.
    pub blocks: Vec<[usize; 4]>,
    /// Number of logits.
    pub classes: usize,
}

/// Channels of the first convolution and of the last.
const FIRST: usize = 32;
const LAST: usize = 1280;

impl MobilenetV2Spec {
    /// The paper's table 2.
    pub const PAPER: [[usize; 4]; 7] = [
        [1, 16, 1, 1],
        [6, 24, 2, 2],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ];

    /// The nearest multiple of 8, but not less than nine tenths.
    fn scaled(&self, channels: usize, factor: f64) -> usize {
        let wanted = channels as f64 * factor;
        let nearest = ((wanted + 4.0) as usize / 8 * 8).max(8);
        if (nearest as f64) < 0.9 * wanted { nearest + 8 } else { nearest }
    }

    /// `[widening, channels, stride]` of each block.
    fn inverted(&self) -> impl Iterator<Item = [usize; 3]> {
        self.blocks.iter().flat_map(|&[t, c, n, s]| {
            let channels = self.scaled(c, self.width);
            (0..n).map(move |i| [t, channels, if i == 0 { s } else { 1 }])
        })
    }
}

impl ModelFamily for MobilenetV2Spec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::float("input", &self.input)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::float("logits", &[self.classes])]
    }

    fn check(&self) -> Result<(), String> {
        let sizes = self.input.iter().chain(self.blocks.iter().flatten()).copied();
        sizes_in_range(sizes.chain([self.classes]))?;
        if !(0.01..=100.0).contains(&self.width) {
            return Err(format!("width = {} is out of range (0.01 <= width <= 100)", self.width));
        }
        if let Some([.., stride]) = self.blocks.iter().find(|b| b[3] > 2) {
            return Err(format!("blocks: stride {stride} is neither 1 nor 2"));
        }
        if self.blocks.iter().map(|b| b[2]).sum::<usize>() > 1000 {
            return Err("blocks: more than 1000 of them".into());
        }
        check_maps(&self.stages())
    }

    fn stages(&self) -> Vec<StagePlan> {
        let mut plans = Vec::new();
        let first = self.scaled(FIRST, self.width);
        let shape = ConvShape::new([self.input[0], first], Window::same(3).stride(2));
        let mut map = shape.output(self.input);
        plans.push(conv_relu6(0, shape, self.input));
        for [widening, channels, stride] in self.inverted() {
            let shape = InvertedShape::new([map[0], channels], widening, stride);
            let flops = shape.flops(map);
            map = shape.output(map);
            let name = format!("features.{}.conv", plans.len());
            let stage = format!("features-{}", plans.len());
            plans.push(StagePlan::new(stage, cut(&map), flops, move |params| {
                InvertedResidual::new(&name, &shape, params)
            }));
        }
        let last = self.scaled(LAST, self.width.max(1.0));
        plans.push(conv_relu6(plans.len(), ConvShape::new([map[0], last], Window::same(1)), map));
        let features = [last, self.classes];
        let flops = 2 * features[0] * features[1];
        plans.push(StagePlan::new("classifier", cut(&[self.classes]), flops, move |params| {
            let init = [Init::Normal(0.01), Init::Zeros];
            MeanDense::new("classifier.1", features, init, params)
        }));
        plans
    }
}

fn conv_relu6(index: usize, shape: ConvShape, map: Map) -> StagePlan {
    let names = [format!("features.{index}.0"), format!("features.{index}.1")];
    let (stage, output) = (format!("features-{index}"), cut(&shape.output(map)));
    StagePlan::new(stage, output, shape.flops(map), move |params| {
        Ok(ConvRelu6 { conv: ConvNorm::new([&names[0], &names[1]], shape, params)? })
    })
}

/// Convolution, normalised, ReLU cut off at 6.
#[derive(Module, Debug)]
struct ConvRelu6 {
    conv: ConvNorm,
}

impl Block for ConvRelu6 {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        Ok(Value::R4(self.conv.forward(x, Rectify::Relu6, pass)?).into())
    }
}

/// The convolutions of an inverted residual.
struct InvertedShape {
    /// 1×1, to more channels; left out where there would be as many.
    expand: Option<ConvShape>,
    /// 3×3 within each channel.
    depthwise: ConvShape,
    /// 1×1, to few channels.
    project: ConvShape,
    residual: bool,
}

impl InvertedShape {
    fn new(channels: [usize; 2], widening: usize, stride: usize) -> Self {
        let [input, output] = channels;
        let hidden = input * widening;
        let pointwise = |channels| ConvShape::new(channels, Window::same(1));
        Self {
            expand: (widening != 1).then(|| pointwise([input, hidden])),
            depthwise: ConvShape::depthwise(hidden, Window::same(3).stride(stride)),
            project: pointwise([hidden, output]),
            residual: stride == 1 && input == output,
        }
    }

    fn all(&self) -> impl Iterator<Item = ConvShape> {
        self.expand.into_iter().chain([self.depthwise, self.project])
    }

    fn output(&self, map: Map) -> Map {
        self.all().fold(map, |map, conv| conv.output(map))
    }

    fn flops(&self, map: Map) -> usize {
        let mut map = map;
        let mut total = 0usize;
        for conv in self.all() {
            total = total.saturating_add(conv.flops(map));
            map = conv.output(map);
        }
        total
    }
}

/// Widens, filters each channel, narrows without an activation; added to the input where that fits.
/// `[batch, in, height, width]` → `[batch, out, height / stride, width / stride]`
#[derive(Module, Debug)]
struct InvertedResidual {
    /// Each but the last is followed by ReLU6.
    convs: Vec<ConvNorm>,
    residual: bool,
}

impl InvertedResidual {
    fn new(name: &str, shape: &InvertedShape, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let last = shape.all().count() - 1;
        let convs = shape.all().enumerate().map(|(i, conv)| {
            // torchvision nests convolution, normalisation and ReLU6 in one module; the last
            // convolution, which has no activation, stands beside its normalisation.
            let names = match i < last {
                true => [format!("{name}.{i}.0"), format!("{name}.{i}.1")],
                false => [format!("{name}.{i}"), format!("{name}.{}", i + 1)],
            };
            ConvNorm::new([&names[0], &names[1]], conv, params)
        });
        Ok(Self { convs: convs.collect::<Result<_, _>>()?, residual: shape.residual })
    }
}

impl Block for InvertedResidual {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        let addend = self.residual.then(|| x.clone());
        let (last, others) = self.convs.split_last().expect("a block has convolutions");
        let y = others.iter().try_fold(x, |x, conv| conv.forward(x, Rectify::Relu6, pass))?;
        let then = Then { addend, rectify: Rectify::Not };
        Ok(Value::R4(last.forward(y, then, pass)?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_rounded_as_in_torchvision() {
        let blocks = MobilenetV2Spec::PAPER.to_vec();
        let spec = MobilenetV2Spec { input: [3, 224, 224], width: 1.0, blocks, classes: 1000 };
        // torchvision.models._utils._make_divisible(channels * factor, 8)
        let expected = [
            (32, 0.35, 16),
            (24, 0.35, 8),
            (24, 0.75, 24),
            (32, 1.4, 48),
            (24, 1.4, 32),
            (16, 0.1, 8),
            (1280, 1.4, 1792),
        ];
        for (channels, factor, rounded) in expected {
            assert_eq!(spec.scaled(channels, factor), rounded, "{channels} x {factor}");
        }
    }

    #[test]
    fn sizes_that_make_no_network_are_refused() {
        let spec = |width, block| {
            let spec =
                MobilenetV2Spec { input: [3, 32, 32], width, blocks: vec![block], classes: 2 };
            spec.check()
        };
        assert_eq!(spec(1.0, [6, 24, 2, 2]), Ok(()));
        let stride = "blocks: stride 3 is neither 1 nor 2";
        assert_eq!(spec(1.0, [6, 24, 2, 3]), Err(stride.into()));
        let width = "width = NaN is out of range (0.01 <= width <= 100)";
        assert_eq!(spec(f64::NAN, [6, 24, 2, 2]), Err(width.into()));
        assert!(spec(1.0, [6, 24, 2000, 1]).is_err());
    }
}
