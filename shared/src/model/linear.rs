//! A linear layer in either of the two layouts that weight files have.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
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

    /// PyTorch's `Linear` with a bias that starts at zero: `[out, in]`.
    pub fn new(
        name: &str,
        features: [usize; 2],
        init: Init,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let linear = Self::plain(name, features, init, params)?;
        let bias = params.param(&format!("{name}.bias"), [features[1]], Init::Zeros)?;
        Ok(Self { bias: Some(bias), ..linear })
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
        project(x, self.matrix(), self.bias.as_ref().map(|b| b.val()))
    }

    /// The same for `[batch, in]`.
    pub fn forward_rows(&self, x: Tensor<2>) -> Tensor<2> {
        rows(x, self.matrix(), self.bias.as_ref().map(|b| b.val()))
    }

    pub fn input_width(&self) -> usize {
        self.weight.dims()[usize::from(self.out_first)]
    }

    /// `[in, out]`; a transposed one is read by strides, without a copy.
    fn matrix(&self) -> Tensor<2> {
        let weight = self.weight.val();
        if self.out_first { weight.transpose() } else { weight }
    }
}

/// `x · weight + bias` with a weight `[in, out]`: `[batch, sequence, in]` → `[batch, sequence, out]`
///
/// All positions are rows of one product of two matrices, which reads a transposed weight where it lies.
/// burn's `linear` gives the weight the input's rank first, and copies a transposed one for that: at one
/// position, the whole table for each token.
pub fn project(x: Tensor<3>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<3> {
    let ([batch, sequence, input], [_, output]) = (x.dims(), weight.dims());
    rows(x.reshape([batch * sequence, input]), weight, bias).reshape([batch, sequence, output])
}

fn rows(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let y = x.matmul(weight);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}
