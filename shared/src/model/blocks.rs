//! Dense layers, and what chain models share: the shape of a cut, and how an input is refused.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu, module::linear},
};

use super::{Activation, Block, Init, ModelError, Params, Pass, Port, StagePlan, Value};

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
        Self::with_init(name, features, relu, [Init::FanIn(features[0]); 2], params)
    }

    /// `init` is of the weight and of the bias.
    pub fn with_init(
        name: &str,
        features: [usize; 2],
        relu: bool,
        init: [Init; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let [input, output] = features;
        Ok(Self {
            weight: params.param(&format!("{name}.weight"), [output, input], init[0])?,
            bias: params.param(&format!("{name}.bias"), [output], init[1])?,
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

/// The tensor of a chain model as a batch of maps; refused if it is not one, or has no values.
pub(super) fn rank4(stage: &str, input: Activation) -> Result<Tensor<4>, ModelError> {
    match input.into_single(stage)? {
        Value::R4(t) if !t.dims().contains(&0) => Ok(t),
        other => Err(shape_error(stage, "[batch, channels, height, width]".into(), &other.dims())),
    }
}

pub(super) fn shape_error(stage: &str, expected: String, found: &[usize]) -> ModelError {
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
