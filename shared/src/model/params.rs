//! How a stage gets its parameters: by name, shape and initial distribution.
//!
//! A parameter's name is the one that its ecosystem's weight files use (`layer1.0.conv1.weight` in
//! torchvision, `h.3.attn.c_attn.weight` in Hugging Face's GPT-2), its layout is theirs too. It is the
//! only name it has: in weight files, in checkpoints, on the wire.

use std::collections::HashMap;

use burn::{
    module::{Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};
use sha2::{Digest, Sha256};

use super::{ModelError, Weights};

/// Distribution of a parameter that no file gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Uniform in ±1/√fan_in: PyTorch's default for linear, convolution and recurrent layers.
    FanIn(usize),
    /// Normal with mean 0 and this standard deviation: 0.02 in GPT-2 and BERT.
    Normal(f32),
    /// Normal with mean 0 and variance 2 / fan_out (He et al. 2015), as torchvision's CNNs.
    KaimingFanOut(usize),
    Zeros,
    Ones,
}

/// What a [`Weights`] source is asked for.
#[derive(Debug, Clone, Copy)]
pub struct ParamSpec<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub init: Init,
}

/// The names of a stage's parameters by burn's id.
pub type ParamNames = HashMap<ParamId, String>;

/// Makes the parameters of one stage, and remembers their names.
pub struct Params<'a> {
    weights: &'a mut dyn Weights,
    device: &'a Device,
    names: ParamNames,
}

impl<'a> Params<'a> {
    pub fn new(weights: &'a mut dyn Weights, device: &'a Device) -> Self {
        Self { weights, device, names: ParamNames::new() }
    }

    pub fn device(&self) -> &Device {
        self.device
    }

    /// A parameter that is trained.
    pub fn param<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let data = self.weights.data(&ParamSpec { name, shape: &shape, init })?;
        let (id, tensor) = self.make(name, data);
        let tensor = if tensor.is_autodiff() { tensor.require_grad() } else { tensor };
        Ok(Param::initialized(id, tensor))
    }

    /// The same, with the values of `instead` where the source has no `name`.
    pub fn param_or<const D: usize>(
        &mut self,
        name: &str,
        instead: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let asked = if self.weights.has(name) { name } else { instead };
        let data = self.weights.data(&ParamSpec { name: asked, shape: &shape, init })?;
        let tensor = Tensor::from_data(data, self.device);
        let tensor = if tensor.is_autodiff() { tensor.require_grad() } else { tensor };
        let id = param_id(name);
        self.names.insert(id, name.into());
        Ok(Param::initialized(id, tensor))
    }

    /// A tensor that belongs to the weights but is not trained by gradients, such as a running mean.
    /// A forward pass changes it through [`super::Pass::update`].
    pub fn buffer<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let data = self.weights.buffer(&ParamSpec { name, shape: &shape, init })?;
        let (id, tensor) = self.make(name, data);
        Ok(Param::initialized(id, tensor).set_require_grad(false))
    }

    fn make<const D: usize>(&mut self, name: &str, data: TensorData) -> (ParamId, Tensor<D>) {
        let id = param_id(name);
        self.names.insert(id, name.into());
        (id, Tensor::from_data(data, self.device))
    }

    pub(super) fn into_names(self) -> ParamNames {
        self.names
    }
}

/// burn's id of a parameter. Optimiser state is keyed by it: derived from the name, it survives a
/// restart.
pub fn param_id(name: &str) -> ParamId {
    let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    ParamId::from(u64::from_le_bytes(hash[..8].try_into().expect("eight bytes")))
}
