//! From hidden states to logits: the last norm, and a linear layer that may be the embedding's table.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{Norm, hidden_states};
use crate::model::{Activation, Block, Init, ModelError, Params, Pass, Value, project};

/// What the head's table is called, `[vocabulary, hidden]`.
#[derive(Debug, Clone, Copy)]
pub struct HeadNames {
    /// The embedding's, which a tied head uses.
    pub tied: &'static str,
    pub own: &'static str,
}

/// `[batch, sequence, hidden]` → `[batch, sequence, vocabulary]`; while a sequence is generated, the
/// logits of its last position only: `[batch, 1, vocabulary]`.
#[derive(Module, Debug)]
pub struct Head<N: Norm> {
    norm: N,
    /// `[vocabulary, hidden]`
    table: Param<Tensor<2>>,
}

impl<N: Norm> Head<N> {
    /// An untied head that the weight file does not have starts as a copy of the embedding: that is how
    /// a model whose file is tied comes to be trained.
    pub fn new(
        norm: N,
        names: HeadNames,
        tied: bool,
        shape: [usize; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let init = Init::Normal(0.02);
        let table = match tied {
            true => params.param(names.tied, shape, init)?,
            false => params.param_or(names.own, names.tied, shape, init)?,
        };
        Ok(Self { norm, table })
    }
}

impl<N: Norm> Block for Head<N> {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = hidden_states(pass.stage, input, self.table.dims()[1])?;
        let last = x.dims()[1].saturating_sub(1);
        let x = if pass.cache.is_some() { x.narrow(1, last, 1) } else { x };
        let logits = project(self.norm.forward(x), self.table.val().transpose(), None);
        Ok(Value::R3(logits).into())
    }
}
