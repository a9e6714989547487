//! Normalisation over the last dimension: `[batch, sequence, hidden]` → the same.

use burn::{
    module::{Module, ModuleDisplay, Param},
    tensor::{Tensor, module::layer_norm},
};

use crate::model::{Init, ModelError, Params};

/// What a transformer normalises with.
pub trait Norm: Module + ModuleDisplay + Sync + 'static {
    fn forward(&self, x: Tensor<3>) -> Tensor<3>;
}

/// Ba, Kiros, Hinton, "Layer Normalization" (2016), with weight and bias.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNorm {
    pub fn new(
        name: &str,
        hidden: usize,
        epsilon: f64,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param(&format!("{name}.weight"), [hidden], Init::Ones)?,
            bias: params.param(&format!("{name}.bias"), [hidden], Init::Zeros)?,
            epsilon,
        })
    }

    pub fn width(&self) -> usize {
        self.weight.dims()[0]
    }
}

impl Norm for LayerNorm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        layer_norm(x, self.weight.val(), Some(self.bias.val()), self.epsilon)
    }
}

/// Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
#[derive(Module, Debug)]
pub struct RmsNorm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    pub fn new(
        name: &str,
        hidden: usize,
        epsilon: f64,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let weight = params.param(&format!("{name}.weight"), [hidden], Init::Ones)?;
        Ok(Self { weight, epsilon })
    }
}

impl Norm for RmsNorm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let mean_square = (x.clone() * x.clone()).mean_dim(2);
        let scale = mean_square.add_scalar(self.epsilon).sqrt().recip();
        x * scale * self.weight.val().unsqueeze()
    }
}
