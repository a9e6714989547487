//! One named step of a model, with its parameters and the optimiser state that belongs to them.
//!
//! [`Block`] is what a model file writes: a burn module with a forward pass. [`Stage`] is the
//! object-safe form that a segment holds, so that a new block needs no central enum.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::{ModuleOptimizer, OptimizerRecord},
    tensor::{Device, Gradients, Tensor},
};

use super::{
    Activation, BufferUpdates, LoraSpec, Mode, ModelError, OptimizerSpec, Pass, Update, Value,
    WeightFormat, Weights,
    gradients::BlockGradients,
    lora::{Attach, is_factor},
    params::ParamNames,
    quantize::Quantizer,
    sparsity::{ApplyMasks, MakeMasks, Masks},
};
use crate::{tensor::HostTensor, wire::NamedTensors};

/// The computation of a stage. `forward` refuses an activation of the wrong names, rank or shape.
pub trait Block: Module + Sync + 'static {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError>;
}

/// A block with a name and an optimiser, behind one object type.
pub trait Stage: Send + Sync {
    fn name(&self) -> &str;
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError>;
    /// Parameters and buffers by name; of a quantised matrix the values that it stands for.
    fn weights(&self) -> NamedTensors;
    /// What a checkpoint has to hold: all weights, or the adapters of a stage that is frozen.
    fn learned(&self) -> NamedTensors;
    /// Whether training changes anything here.
    fn trains(&self) -> bool;
    /// Bytes that the weights take in memory.
    fn weight_bytes(&self) -> usize;
    /// Keeps weight matrices in this format from now on, for inference only; `is_input_major` as in
    /// [`super::ModelFamily`].
    fn quantize(&mut self, format: WeightFormat, is_input_major: &dyn Fn(&str) -> bool);
    /// Freezes the stage but for adapters of the targets of `lora`, whose factors are from `factors`.
    fn adapt(
        &mut self,
        lora: Option<&LoraSpec>,
        factors: &mut dyn Weights,
        is_input_major: &dyn Fn(&str) -> bool,
        device: &Device,
    ) -> Result<(), ModelError>;
    /// Sets this share of each weight matrix, the smallest, to zero, and keeps it there.
    fn sparsify(&mut self, amount: f64);
    /// Adds the gradients of this stage's parameters to those of the step so far.
    fn accumulate(&mut self, gradients: &mut Gradients);
    /// Sum of the squares of the gradients that were added up.
    fn gradient_square(&self) -> f64;
    /// Drops the gradients that were added up.
    fn forget(&mut self);
    /// Applies the optimiser to the gradients that were added up, and gives those buffers that are this
    /// stage's their new values.
    fn commit(&mut self, optimizer: &OptimizerSpec, update: Update, buffers: &BufferUpdates);
    /// Optimiser state as burn serialises it; empty before the first step.
    fn optimizer_state(&self) -> Result<Vec<u8>, ModelError>;
    fn load_optimizer_state(
        &mut self,
        optimizer: &OptimizerSpec,
        state: Vec<u8>,
    ) -> Result<(), ModelError>;
}

pub(super) struct BlockStage<B> {
    name: String,
    block: B,
    names: ParamNames,
    optimizer: Option<ModuleOptimizer>,
    gradients: BlockGradients,
    /// Only adapters learn, if there are any.
    frozen: bool,
    /// Bytes of the matrices that are quantised.
    quantized: HashMap<ParamId, usize>,
    masks: Masks,
}

impl<B: Block> BlockStage<B> {
    pub(super) fn boxed(name: &str, block: B, names: ParamNames) -> Box<dyn Stage> {
        Box::new(Self {
            name: name.into(),
            block,
            names,
            optimizer: None,
            gradients: BlockGradients::default(),
            frozen: false,
            quantized: HashMap::new(),
            masks: Masks::new(),
        })
    }

    fn collect(&self, block: &B) -> NamedTensors {
        let mut collector = Collector { names: &self.names, found: Vec::new() };
        block.visit(&mut collector);
        collector.found
    }

    fn state_error(&self, problem: impl ToString) -> ModelError {
        ModelError::Optimizer { stage: self.name.clone(), problem: problem.to_string() }
    }
}

impl<B: Block> Stage for BlockStage<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        if self.frozen {
            // Running statistics are frozen as well: the layers behave as deployed.
            pass.mode = Mode::Eval;
        }
        self.block.forward(input, pass)
    }

    fn weights(&self) -> NamedTensors {
        match self.quantized.is_empty() {
            true => self.collect(&self.block),
            false => self.collect(&self.block.clone().materialize()),
        }
    }

    fn learned(&self) -> NamedTensors {
        let mut found = self.collect(&self.block);
        if self.frozen {
            found.retain(|(name, _)| is_factor(name));
        }
        found
    }

    fn trains(&self) -> bool {
        let mut trained = Trained(false);
        self.block.visit(&mut trained);
        trained.0
    }

    fn weight_bytes(&self) -> usize {
        let mut bytes = Bytes { quantized: &self.quantized, total: 0 };
        self.block.visit(&mut bytes);
        bytes.total
    }

    fn quantize(&mut self, format: WeightFormat, is_input_major: &dyn Fn(&str) -> bool) {
        let mut quantizer =
            Quantizer { names: &self.names, format, is_input_major, bytes: HashMap::new() };
        self.block = self.block.clone().apply_reparameterization(&mut quantizer);
        self.quantized = quantizer.bytes;
    }

    fn adapt(
        &mut self,
        lora: Option<&LoraSpec>,
        factors: &mut dyn Weights,
        is_input_major: &dyn Fn(&str) -> bool,
        device: &Device,
    ) -> Result<(), ModelError> {
        let names = &mut self.names;
        let mut attach = Attach { names, lora, factors, is_input_major, device, outcome: Ok(()) };
        self.block = self.block.clone().apply_reparameterization(&mut attach);
        self.frozen = true;
        attach.outcome
    }

    fn sparsify(&mut self, amount: f64) {
        let mut make = MakeMasks { names: &self.names, amount, masks: Masks::new() };
        self.block.visit(&mut make);
        self.masks = make.masks;
        self.block = self.block.clone().map(&mut ApplyMasks(&self.masks));
    }

    fn accumulate(&mut self, gradients: &mut Gradients) {
        self.gradients.add(&self.block, gradients);
    }

    fn gradient_square(&self) -> f64 {
        self.gradients.square(&self.block)
    }

    fn forget(&mut self) {
        self.gradients.clear();
    }

    fn commit(&mut self, optimizer: &OptimizerSpec, update: Update, buffers: &BufferUpdates) {
        let gradients = self.gradients.take(&self.block, update.scale);
        if !gradients.is_empty() {
            let state = self.optimizer.get_or_insert_with(|| optimizer.init());
            self.block = state.step(update.learning_rate, self.block.clone(), gradients);
            if !self.masks.is_empty() {
                self.block = self.block.clone().map(&mut ApplyMasks(&self.masks));
            }
        }
        let own = buffers.0.iter().filter(|(id, _)| self.names.contains_key(id));
        let own: HashMap<_, _> = own.map(|(id, value)| (*id, value.clone())).collect();
        if !own.is_empty() {
            self.block = self.block.clone().map(&mut Replace(own));
        }
    }

    fn optimizer_state(&self) -> Result<Vec<u8>, ModelError> {
        let Some(optimizer) = &self.optimizer else { return Ok(Vec::new()) };
        Ok(optimizer.into_bytes().map_err(|e| self.state_error(e))?.to_vec())
    }

    fn load_optimizer_state(
        &mut self,
        optimizer: &OptimizerSpec,
        state: Vec<u8>,
    ) -> Result<(), ModelError> {
        if state.is_empty() {
            self.optimizer = None;
            return Ok(());
        }
        let bytes = burn::tensor::Bytes::from_bytes_vec(state);
        let record = OptimizerRecord::from_bytes(bytes).map_err(|e| self.state_error(e))?;
        self.optimizer = Some(optimizer.init().load_record(record));
        Ok(())
    }
}

struct Collector<'a> {
    names: &'a ParamNames,
    found: Vec<(String, HostTensor)>,
}

impl ModuleVisitor for Collector<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names.get(&param.id).expect("made by Params").clone();
        let data = param.val().into_data();
        let shape: Vec<usize> = data.shape().iter().copied().collect();
        let values = data.as_slice::<f32>().expect("parameters are f32");
        self.found.push((name, HostTensor::from_f32(shape, values)));
    }
}

struct Trained(bool);

impl ModuleVisitor for Trained {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 |= param.base().is_require_grad();
    }
}

struct Bytes<'a> {
    quantized: &'a HashMap<ParamId, usize>,
    total: usize,
}

impl ModuleVisitor for Bytes<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let dense = || param.dims().iter().product::<usize>() * size_of::<f32>();
        self.total += self.quantized.get(&param.id).copied().unwrap_or_else(dense);
    }
}

struct Replace(HashMap<ParamId, Tensor<1>>);

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.0.remove(&param.id) {
            Some(value) => {
                let shape = param.dims();
                param.map(|_| value.reshape(shape))
            }
            None => param,
        }
    }
}

impl From<Value> for Activation {
    fn from(value: Value) -> Self {
        Activation::single(value)
    }
}
