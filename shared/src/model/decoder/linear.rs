//! A linear layer in either of the two layouts that weight files have.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module::linear},
};

use crate::model::{Init, ModelError, Params};

/// `x · W + b` on the last dimension: `[batch, sequence, in]` → `[batch, sequence, out]`
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
    /// Whether the weight is `[out, in]`, PyTorch's layout; else `[in, out]`, that of GPT-2's `Conv1D`.
    out_first: bool,
}

impl Linear {
    /// PyTorch's `Linear` without a bias: `[out, in]`.
    pub fn plain(
        name: &str,
        [input, output]: [usize; 2],
        init: Init,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let weight = params.param(&format!("{name}.weight"), [output, input], init)?;
        Ok(Self { weight, bias: None, out_first: true })
    }

    /// GPT-2's `Conv1D`: `[in, out]`, with a bias.
    pub fn conv1d(
        name: &str,
        [input, output]: [usize; 2],
        init: Init,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let weight = params.param(&format!("{name}.weight"), [input, output], init)?;
        let bias = Some(params.param(&format!("{name}.bias"), [output], Init::Zeros)?);
        Ok(Self { weight, bias, out_first: false })
    }

    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.weight.val();
        // The product reads a transposed weight by strides, without a copy.
        let weight = if self.out_first { weight.transpose() } else { weight };
        linear(x, weight, self.bias.as_ref().map(|b| b.val()))
    }
}
