//! What convolutional networks are made of: convolutions and pooling, and what they do to a map.
//!
//! A model file plans its stages from the shapes alone: [`Window`] is where a kernel stands, and
//! [`ConvShape`] a convolution that is not made yet. The layers made from them keep PyTorch's layouts
//! and names. [`ConvRelu`], [`MaxPool`], [`AvgPool`] and [`MeanDense`] are stages by themselves.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu, module::adaptive_avg_pool2d},
};

use crate::kernels::{Steps, Then, convolve, convolve_scaled, max_pool};

use super::{
    Activation, Block, Init, ModelError, Params, Pass, StagePlan, Value,
    blocks::{Dense, rank4, shape_error},
    spec::sizes_in_range,
};

/// A feature map of one sample: `[channels, height, width]`.
pub(super) type Map = [usize; 3];

/// A square window that moves over a map.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub size: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Window {
    /// Stride 1, and padded so that the map keeps its size; for odd sizes.
    pub fn same(size: usize) -> Self {
        Self { size, stride: 1, padding: size / 2 }
    }

    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Extent of the output; 0 if the window does not fit once.
    fn output(&self, extent: usize) -> usize {
        match (extent + 2 * self.padding).checked_sub(self.size) {
            Some(room) => room / self.stride + 1,
            None => 0,
        }
    }

    /// The map after a pooling.
    pub fn pooled(&self, [channels, height, width]: Map) -> Map {
        [channels, self.output(height), self.output(width)]
    }

    fn steps(&self) -> Steps {
        Steps { stride: self.stride, padding: self.padding }
    }

    fn check(&self, stage: &str, x: &Tensor<4>) -> Result<(), ModelError> {
        let [_, _, height, width] = x.dims();
        if self.output(height) > 0 && self.output(width) > 0 {
            return Ok(());
        }
        let least = self.size.saturating_sub(2 * self.padding);
        Err(shape_error(stage, format!("a map of {least}×{least} or larger"), &x.dims()))
    }
}

/// A convolution before it is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConvShape {
    input: usize,
    output: usize,
    window: Window,
    groups: usize,
}

impl ConvShape {
    /// From `channels[0]` to `channels[1]` channels.
    pub fn new(channels: [usize; 2], window: Window) -> Self {
        Self { input: channels[0], output: channels[1], window, groups: 1 }
    }

    /// One kernel for each channel, which sees no other channel.
    pub fn depthwise(channels: usize, window: Window) -> Self {
        Self { groups: channels, ..Self::new([channels, channels], window) }
    }

    pub fn channels(&self) -> usize {
        self.output
    }

    /// The map behind it.
    pub fn output(&self, [_, height, width]: Map) -> Map {
        [self.output, self.window.output(height), self.window.output(width)]
    }

    /// Operations on one map, two for each multiply and add.
    pub fn flops(&self, map: Map) -> usize {
        let taps = [2, self.input / self.groups, self.window.size, self.window.size];
        taps.into_iter().chain(self.output(map)).fold(1, usize::saturating_mul)
    }

    /// PyTorch's default distribution.
    pub fn fan_in(&self) -> Init {
        Init::FanIn(self.input / self.groups * self.window.size.pow(2))
    }

    /// He's, as torchvision computes it: as if the groups were one.
    pub fn kaiming(&self) -> Init {
        Init::KaimingFanOut(self.output * self.window.size.pow(2))
    }
}

/// Refuses a plan in which a map has vanished or is too large for anybody.
pub(super) fn check_maps(plans: &[StagePlan]) -> Result<(), String> {
    for plan in plans {
        let shape = plan.outputs[0].largest();
        if shape.contains(&0) {
            return Err(format!("the input is too small: nothing is left of it at {}", plan.name));
        }
        sizes_in_range(shape).map_err(|e| format!("{}: {e}", plan.name))?;
    }
    Ok(())
}

/// 2-D convolution. `[batch, in, height, width]` → `[batch, out, height', width']`
#[derive(Module, Debug)]
pub(super) struct Conv2d {
    /// `[out, in / groups, size, size]`
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    window: Window,
    groups: usize,
}

impl Conv2d {
    /// `bias` is its initial distribution, none for a convolution without.
    pub fn new(
        name: &str,
        shape: ConvShape,
        weight: Init,
        bias: Option<Init>,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let ConvShape { input, output, window, groups } = shape;
        let kernel = [output, input / groups, window.size, window.size];
        let weight = params.param(&format!("{name}.weight"), kernel, weight)?;
        let bias = match bias {
            Some(init) => Some(params.param(&format!("{name}.bias"), [output], init)?),
            None => None,
        };
        Ok(Self { weight, bias, window, groups })
    }

    pub fn forward(&self, x: Tensor<4>, stage: &str) -> Result<Tensor<4>, ModelError> {
        self.check(&x, stage)?;
        let bias = self.bias.as_ref().map(|b| b.val());
        Ok(convolve(x, self.weight.val(), bias, self.window.steps()))
    }

    /// Without its bias: the maps are scaled and shifted, each channel as a whole.
    pub fn forward_scaled(
        &self,
        x: Tensor<4>,
        by_channel: [Tensor<1>; 2],
        then: Then,
        stage: &str,
    ) -> Result<Tensor<4>, ModelError> {
        self.check(&x, stage)?;
        Ok(convolve_scaled(x, self.weight.val(), by_channel, then, self.window.steps()))
    }

    fn check(&self, x: &Tensor<4>, stage: &str) -> Result<(), ModelError> {
        let channels = self.weight.dims()[1] * self.groups;
        if x.dims()[1] != channels {
            return Err(shape_error(stage, format!("{channels} channels"), &x.dims()));
        }
        self.window.check(stage, x)
    }
}

/// Convolution with a bias, then ReLU.
#[derive(Module, Debug)]
pub(super) struct ConvRelu {
    conv: Conv2d,
}

impl ConvRelu {
    pub fn new(
        name: &str,
        shape: ConvShape,
        [weight, bias]: [Init; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        Ok(Self { conv: Conv2d::new(name, shape, weight, Some(bias), params)? })
    }
}

impl Block for ConvRelu {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        Ok(Value::R4(relu(self.conv.forward(x, pass.stage)?)).into())
    }
}

/// Max pooling; what is left over at the end is dropped.
/// `[batch, channels, height, width]` → `[batch, channels, height', width']`
#[derive(Module, Debug)]
pub(super) struct MaxPool {
    #[module(skip)]
    window: Window,
}

impl MaxPool {
    pub fn new(window: Window) -> Self {
        Self { window }
    }
}

impl Block for MaxPool {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        self.window.check(pass.stage, &x)?;
        Ok(Value::R4(max_pool(x, self.window.size, self.window.steps())).into())
    }
}

/// Adaptive average pooling as PyTorch's: output `i` of `n` is the mean of the inputs from
/// `⌊i·extent/n⌋` to `⌈(i+1)·extent/n⌉`. `[batch, channels, h, w]` → `[batch, channels, size, size]`
#[derive(Module, Debug)]
pub(super) struct AvgPool {
    size: usize,
}

impl AvgPool {
    pub fn new(size: usize) -> Self {
        Self { size }
    }
}

impl Block for AvgPool {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        Ok(Value::R4(adaptive_avg_pool2d(x, [self.size; 2])).into())
    }
}

/// Mean of each map, then the logits. `[batch, channels, height, width]` → `[batch, classes]`
#[derive(Module, Debug)]
pub(super) struct MeanDense {
    dense: Dense,
}

impl MeanDense {
    pub fn new(
        name: &str,
        features: [usize; 2],
        init: [Init; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        Ok(Self { dense: Dense::with_init(name, features, false, init, params)? })
    }
}

impl Block for MeanDense {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = rank4(pass.stage, input)?;
        self.dense.forward(Value::R4(adaptive_avg_pool2d(x, [1, 1])).into(), pass)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{ModelSpec, SeededWeights, Segment},
        tensor::HostTensor,
    };

    fn sized(name: &str, size: usize) -> ModelSpec {
        let mut spec = ModelSpec::builtin(name).unwrap();
        let input = [3, size, size];
        match &mut spec {
            ModelSpec::Alexnet(s) => s.input = input,
            ModelSpec::Vgg(s) => s.input = input,
            ModelSpec::Resnet(s) => s.input = input,
            ModelSpec::MobilenetV2(s) => s.input = input,
            other => panic!("{other:?}"),
        }
        spec
    }

    #[test]
    fn the_smallest_input_is_torchvisions() {
        // `min_size` of torchvision's weights.
        let least =
            [("alexnet", 63), ("vgg16", 32), ("resnet18", 1), ("resnet50", 1), ("mobilenetv2", 1)];
        for (name, size) in least {
            assert_eq!(sized(name, size).check(), Ok(()), "{name}");
            assert!(sized(name, size - 1).check().is_err(), "{name}");
        }
        let gone = "the input is too small: nothing is left of it at pool5";
        assert_eq!(sized("alexnet", 62).check(), Err(gone.into()));
        assert_eq!(sized("vgg16", 31).check(), Err(gone.into()));
    }

    #[test]
    fn a_map_of_the_wrong_shape_is_an_error_in_every_stage() {
        let spec = ModelSpec::builtin("alexnet").unwrap();
        let ModelSpec::Alexnet(mut sizes) = spec else { unreachable!() };
        (sizes.channels, sizes.hidden) = ([4, 5, 6, 7, 8], [9, 10]);
        let spec = ModelSpec::Alexnet(sizes);
        let plans = spec.stages();
        for (i, plan) in plans.iter().enumerate() {
            let mut source = SeededWeights(1);
            let stage = Segment::build(&spec, i..i + 1, &mut source, false).unwrap();
            let refuses = |shape: &[usize]| {
                let values = vec![0.5; shape.iter().product()];
                let x = HostTensor::from_f32(shape.to_vec(), &values);
                let error = stage.infer(&vec![("x".into(), x)]).err();
                error.map(|e| e.to_string())
            };
            let expected = format!("stage {}: expected ", plan.name);
            let shapes: &[&[usize]] = match plan.name.as_str() {
                "conv1" => &[&[1, 4, 64, 64], &[1, 3, 6, 64], &[3, 64, 64], &[1, 3, 0, 64]],
                name if name.starts_with("pool") => &[&[1, 4, 2, 9], &[2, 9], &[0, 4, 9, 9]],
                "avgpool" => &[&[1, 8, 0, 3], &[8, 3, 3]],
                _ => &[&[1, 11, 8, 8], &[1, 11], &[4]],
            };
            for shape in shapes {
                let error = refuses(shape).unwrap_or_else(|| panic!("{}: {shape:?}", plan.name));
                assert!(error.starts_with(&expected), "{error}");
            }
        }
    }
}
