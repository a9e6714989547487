//! The layers that the small models are made of: convolution, pooling, dense.

use burn::{
    module::{Module, Param},
    tensor::{
        Tensor,
        activation::relu,
        module::{conv2d, linear, max_pool2d},
        ops::{ConvOptions, MaxPoolOptions},
    },
};

use super::{Activation, Block, Init, ModelError, Params, Pass, Port, StagePlan, Value};

/// Convolution 3×3, stride 1, padding 1, then ReLU.
/// `[batch, in, height, width]` → `[batch, out, height, width]`
#[derive(Module, Debug)]
pub struct Conv3x3 {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl Conv3x3 {
    pub fn new(
        name: &str,
        channels: [usize; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let [input, output] = channels;
        let init = Init::FanIn(input * 9);
        Ok(Self {
            weight: params.param(&format!("{name}.weight"), [output, input, 3, 3], init)?,
            bias: params.param(&format!("{name}.bias"), [output], init)?,
        })
    }
}

impl Block for Conv3x3 {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let stage = pass.stage;
        let x = rank4(stage, input)?;
        let [_, channels, _, _] = self.weight.dims();
        if x.dims()[1] != channels {
            return Err(shape_error(stage, format!("{channels} channels"), &x.dims()));
        }
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let y = conv2d(x, self.weight.val(), Some(self.bias.val()), options);
        Ok(Value::R4(relu(y)).into())
    }
}

/// Max pooling 2×2, stride 2. `[batch, c, h, w]` → `[batch, c, h/2, w/2]`
#[derive(Module, Debug)]
pub struct MaxPool {
    size: usize,
}

impl MaxPool {
    pub fn new() -> Self {
        Self { size: 2 }
    }
}

impl Block for MaxPool {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let stage = pass.stage;
        let x = rank4(stage, input)?;
        let window = [self.size, self.size];
        let options = MaxPoolOptions {
            kernel_size: window,
            stride: window,
            padding: [(0, 0), (0, 0)],
            dilation: [1, 1],
            ceil_mode: false,
        };
        Ok(Value::R4(max_pool2d(x, options)).into())
    }
}

/// Flattens all but the batch, then a linear layer, with or without ReLU.
/// `[batch, ...]` → `[batch, out]`
#[derive(Module, Debug)]
pub struct Dense {
    /// `[out, in]`
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    relu: bool,
}

impl Dense {
    pub fn new(
        name: &str,
        features: [usize; 2],
        relu: bool,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let [input, output] = features;
        let init = Init::FanIn(input);
        Ok(Self {
            weight: params.param(&format!("{name}.weight"), [output, input], init)?,
            bias: params.param(&format!("{name}.bias"), [output], init)?,
            relu,
        })
    }
}

impl Block for Dense {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let stage = pass.stage;
        let x: Tensor<2> = match input.into_single(stage)? {
            Value::R2(t) => t,
            Value::R3(t) => t.flatten(1, 2),
            Value::R4(t) => t.flatten(1, 3),
            other => return Err(shape_error(stage, "FP32 of rank 2 to 4".into(), &other.dims())),
        };
        let [_, features] = self.weight.dims();
        if x.dims()[1] != features {
            return Err(shape_error(stage, format!("{features} features"), &x.dims()));
        }
        // PyTorch's layout [out, in]; the product reads it by strides, without a copy.
        let y = linear(x, self.weight.val().transpose(), Some(self.bias.val()));
        Ok(Value::R2(if self.relu { relu(y) } else { y }).into())
    }
}

fn rank4(stage: &str, input: Activation) -> Result<Tensor<4>, ModelError> {
    match input.into_single(stage)? {
        Value::R4(t) => Ok(t),
        other => Err(shape_error(stage, "[batch, channels, height, width]".into(), &other.dims())),
    }
}

fn shape_error(stage: &str, expected: String, found: &[usize]) -> ModelError {
    ModelError::Input { stage: stage.into(), expected, found: format!("shape {found:?}") }
}

/// What crosses a cut of a chain model: one tensor `x`.
pub(super) fn cut(shape: &[usize]) -> Vec<Port> {
    vec![Port::float("x", shape)]
}

/// `fc1..fcN`: dense layers with ReLU, the last one (the logits) without.
pub(super) fn dense_stack(input: usize, hidden: &[usize], classes: usize) -> Vec<StagePlan> {
    let mut widths = vec![input];
    widths.extend(hidden);
    widths.push(classes);
    let last = widths.len() - 1;
    let plan = |i: usize| {
        let (pair, relu, name) = ([widths[i - 1], widths[i]], i != last, format!("fc{i}"));
        let flops = 2 * pair[0] * pair[1];
        StagePlan::new(name.clone(), cut(&[widths[i]]), flops, move |params| {
            Dense::new(&name, pair, relu, params)
        })
    };
    (1..=last).map(plan).collect()
}
