//! The layers that the small models are made of: convolution, pooling, dense.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{
        Device, Tensor, TensorData,
        activation::relu,
        module::{conv2d, linear, max_pool2d},
        ops::{ConvOptions, MaxPoolOptions},
    },
};
use sha2::{Digest, Sha256};

use super::{Activation, Block, ModelError, Value, Weights};

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
        weights: &mut dyn Weights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let [input, output] = channels;
        let mut source = Source { name, fan_in: input * 9, weights, device };
        Ok(Self {
            weight: source.param("weight", [output, input, 3, 3])?,
            bias: source.param("bias", [output])?,
        })
    }
}

impl Block for Conv3x3 {
    fn forward(&self, stage: &str, input: Activation) -> Result<Activation, ModelError> {
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
    fn forward(&self, stage: &str, input: Activation) -> Result<Activation, ModelError> {
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
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    relu: bool,
}

impl Dense {
    pub fn new(
        name: &str,
        features: [usize; 2],
        relu: bool,
        weights: &mut dyn Weights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let [input, output] = features;
        let mut source = Source { name, fan_in: input, weights, device };
        Ok(Self {
            weight: source.param("weight", [input, output])?,
            bias: source.param("bias", [output])?,
            relu,
        })
    }
}

impl Block for Dense {
    fn forward(&self, stage: &str, input: Activation) -> Result<Activation, ModelError> {
        let x: Tensor<2> = match input.into_single(stage)? {
            Value::R2(t) => t,
            Value::R3(t) => t.flatten(1, 2),
            Value::R4(t) => t.flatten(1, 3),
            Value::R1(t) => return Err(shape_error(stage, "rank 2 or more".into(), &t.dims())),
        };
        let [features, _] = self.weight.dims();
        if x.dims()[1] != features {
            return Err(shape_error(stage, format!("{features} features"), &x.dims()));
        }
        let y = linear(x, self.weight.val(), Some(self.bias.val()));
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

/// Makes the parameters of one stage from a weight source.
struct Source<'a> {
    name: &'a str,
    fan_in: usize,
    weights: &'a mut dyn Weights,
    device: &'a Device,
}

impl Source<'_> {
    fn param<const D: usize>(
        &mut self,
        leaf: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let name = format!("{}.{leaf}", self.name);
        let values = self.weights.values(&name, &shape, self.fan_in)?;
        let tensor = Tensor::from_data(TensorData::new(values, shape.to_vec()), self.device);
        // Optimiser state is keyed by this id: derived from the name, it survives a restart.
        let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
        let id = u64::from_le_bytes(hash[..8].try_into().expect("eight bytes"));
        let tensor = if tensor.is_autodiff() { tensor.require_grad() } else { tensor };
        Ok(Param::initialized(ParamId::from(id), tensor))
    }
}
