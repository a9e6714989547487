//! What a forward pass is beside its input: training or not, and what it leaves behind.

use std::collections::HashMap;

use burn::{
    module::{Param, ParamId},
    tensor::Tensor,
};

use super::Value;
use crate::tensor::DType;

/// Whether layers behave as in training (BatchNorm by the batch's statistics) or as deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Train,
    Eval,
}

/// New values of buffers, which take effect when the step is committed and not before: a forward pass
/// that is repeated after a broken connection must not count twice. Each micro-batch of a step starts
/// from what the one before it left.
#[derive(Debug, Default)]
pub struct BufferUpdates(pub(super) HashMap<ParamId, Tensor<1>>);

/// What a stage keeps between two calls of one generation, such as keys and values of attention.
#[derive(Debug, Default, Clone)]
pub struct StageCache {
    /// Positions that came before this call.
    pub position: usize,
    pub tensors: Vec<Value>,
}

impl StageCache {
    /// Bytes of the tensors, room that is not filled yet included.
    pub fn bytes(&self) -> usize {
        let bytes = |v: &Value| {
            let element = if v.is_int() { DType::I64 } else { DType::F32 }.size();
            v.dims().iter().product::<usize>() * element
        };
        self.tensors.iter().map(bytes).sum()
    }
}

/// One call of one stage.
pub struct Pass<'a> {
    /// Name of the stage, for errors.
    pub stage: &'a str,
    pub mode: Mode,
    /// Present while a sequence is generated step by step.
    pub cache: Option<&'a mut StageCache>,
    pub(super) updates: &'a mut BufferUpdates,
}

impl Pass<'_> {
    /// What a buffer will be once the step so far is committed.
    pub fn pending(&self, buffer: &Param<Tensor<1>>) -> Tensor<1> {
        self.updates.0.get(&buffer.id).cloned().unwrap_or_else(|| buffer.val())
    }

    /// Gives a buffer a new value once the step is committed.
    pub fn update(&mut self, buffer: ParamId, value: Tensor<1>) {
        self.updates.0.insert(buffer, value.detach());
    }
}
