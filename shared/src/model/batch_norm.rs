//! Batch normalisation (Ioffe & Szegedy 2015), behind a convolution.
//!
//! In training a channel is normalised by the batch's own mean and variance, and the running estimates
//! move a tenth of the way towards them; as deployed, by the running estimates. Each node keeps those of
//! its own stages, and takes the new ones over when the step is committed, as it does the weights.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use crate::kernels::{Normalized, Then, normalize};

use super::{
    Init, Mode, ModelError, Params, Pass,
    blocks::shape_error,
    conv::{Conv2d, ConvShape},
};

/// PyTorch's defaults.
const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// Batch normalisation of maps. `[batch, channels, height, width]`, in and out
#[derive(Module, Debug)]
pub(super) struct BatchNorm2d {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
}

impl BatchNorm2d {
    pub fn new(name: &str, channels: usize, params: &mut Params<'_>) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param(&format!("{name}.weight"), [channels], Init::Ones)?,
            bias: params.param(&format!("{name}.bias"), [channels], Init::Zeros)?,
            running_mean: params.buffer(
                &format!("{name}.running_mean"),
                [channels],
                Init::Zeros,
            )?,
            running_var: params.buffer(&format!("{name}.running_var"), [channels], Init::Ones)?,
        })
    }

    fn by_batch(
        &self,
        x: Tensor<4>,
        then: Then,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor<4>, ModelError> {
        let [batch, _, height, width] = x.dims();
        let count = batch * height * width;
        if count < 2 {
            let expected = "more than one value a channel to train on".into();
            return Err(shape_error(pass.stage, expected, &x.dims()));
        }
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let Normalized { output, mean, variance } =
            normalize(x, weight, bias, then, EPSILON as f32);
        // The output is normalised by the batch's variance itself, the running estimate is of the
        // population's.
        let variance = variance * (count as f64 / (count - 1) as f64);
        for (running, new) in [(&self.running_mean, mean), (&self.running_var, variance)] {
            let moved = pass.pending(running) * (1.0 - MOMENTUM) + new * MOMENTUM;
            pass.update(running.id, moved);
        }
        Ok(output)
    }

    /// By the running estimates it is one scale and one shift a channel.
    fn by_running(&self) -> [Tensor<1>; 2] {
        let scale = self.weight.val() / (self.running_var.val() + EPSILON).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        [scale, shift]
    }
}

/// Convolution without a bias, then batch normalisation, an addend and a rectifier.
#[derive(Module, Debug)]
pub(super) struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl ConvNorm {
    /// `names` are the convolution's and the normalisation's.
    pub fn new(
        names: [&str; 2],
        shape: ConvShape,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            conv: Conv2d::new(names[0], shape, shape.kaiming(), None, params)?,
            norm: BatchNorm2d::new(names[1], shape.channels(), params)?,
        })
    }

    pub fn forward(
        &self,
        x: Tensor<4>,
        then: impl Into<Then>,
        pass: &mut Pass<'_>,
    ) -> Result<Tensor<4>, ModelError> {
        match pass.mode {
            Mode::Train => {
                let x = self.conv.forward(x, pass.stage)?;
                self.norm.by_batch(x, then.into(), pass)
            }
            Mode::Eval => {
                self.conv.forward_scaled(x, self.norm.by_running(), then.into(), pass.stage)
            }
        }
    }
}
