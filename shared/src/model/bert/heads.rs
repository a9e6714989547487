//! What follows the encoder: one vector for each sample, and what is read from it.

use burn::{
    module::Module,
    tensor::{Tensor, activation::tanh},
};

use super::encoder::{dense, hidden_states};
use crate::model::{Activation, Block, Linear, ModelError, Params, Pass, Value};

/// Least length that a sentence embedding is divided by, as in PyTorch's `normalize`.
const LEAST_LENGTH: f32 = 1e-12;
/// Least number of tokens that a sum is divided by, as in sentence-transformers' mean pooling.
const LEAST_TOKENS: f32 = 1e-9;

/// Linear layer and tanh on the first token, `[CLS]`. `x` `[batch, sequence, hidden]` and
/// `attention_mask` → `[batch, hidden]`
#[derive(Module, Debug)]
pub struct Pooler {
    dense: Linear,
}

impl Pooler {
    pub fn new(hidden: usize, params: &mut Params<'_>) -> Result<Self, ModelError> {
        Ok(Self { dense: dense("bert.pooler.dense", [hidden; 2], params)? })
    }
}

impl Block for Pooler {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let (x, _) = hidden_states(pass.stage, input, self.dense.input_width())?;
        let [batch, _, hidden] = x.dims();
        let first = x.narrow(1, 0, 1).reshape([batch, hidden]);
        Ok(Value::R2(tanh(self.dense.forward_rows(first))).into())
    }
}

/// `[batch, hidden]` → logits `[batch, classes]`
#[derive(Module, Debug)]
pub struct Classifier {
    classifier: Linear,
}

impl Classifier {
    pub fn new(hidden: usize, classes: usize, params: &mut Params<'_>) -> Result<Self, ModelError> {
        Ok(Self { classifier: dense("classifier", [hidden, classes], params)? })
    }
}

impl Block for Classifier {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let hidden = self.classifier.input_width();
        match input.into_single(pass.stage)? {
            Value::R2(x) if x.dims()[1] == hidden => {
                Ok(Value::R2(self.classifier.forward_rows(x)).into())
            }
            other => Err(ModelError::Input {
                stage: pass.stage.into(),
                expected: format!("FP32 [batch, {hidden}]"),
                found: format!("shape {:?}", other.dims()),
            }),
        }
    }
}

/// Mean of the tokens that are no padding, divided by its length: a cosine is then a dot product.
/// `x` `[batch, sequence, hidden]` and `attention_mask` → `[batch, hidden]`
#[derive(Module, Debug)]
pub struct SentencePooling {
    hidden: usize,
}

impl SentencePooling {
    pub fn new(hidden: usize) -> Self {
        Self { hidden }
    }
}

impl Block for SentencePooling {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let (x, mask) = hidden_states(pass.stage, input, self.hidden)?;
        let [batch, sequence, hidden] = x.dims();
        let weight: Tensor<3> = mask.float().reshape([batch, sequence, 1]);
        let tokens = weight.clone().sum_dim(1).clamp_min(LEAST_TOKENS);
        let mean = (x * weight).sum_dim(1) / tokens;
        let mean: Tensor<2> = mean.reshape([batch, hidden]);
        let length = (mean.clone() * mean.clone()).sum_dim(1).sqrt().clamp_min(LEAST_LENGTH);
        Ok(Value::R2(mean / length).into())
    }
}
