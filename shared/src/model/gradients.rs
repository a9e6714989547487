//! The gradients of one step, between the backward passes that add to them and the commit that applies
//! them.
//!
//! A step may be cut into micro-batches, and nothing of it may be applied before both halves have all of
//! it: what is added up here can be forgotten at any time, and the step taken again.

use std::sync::Mutex;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Gradients, Tensor},
};

use super::{ModelError, activation::float_data, params::ParamNames};
use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// What a commit does with the gradients that were added up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub learning_rate: f64,
    /// What the gradients are multiplied by first, to clip their norm over both halves; 1 leaves them.
    pub scale: f64,
}

impl Update {
    /// With the gradients as they are.
    pub fn at(learning_rate: f64) -> Self {
        Self { learning_rate, scale: 1.0 }
    }
}

/// The sum of the gradients of one block.
#[derive(Default)]
pub(super) struct BlockGradients {
    /// Locked only because burn's container cannot be shared between threads, as a stage can.
    sum: Mutex<GradientsParams>,
}

impl BlockGradients {
    /// Takes out of `found` what belongs to `block`, and adds it.
    pub fn add<B: Module>(&mut self, block: &B, found: &mut Gradients) {
        let new = GradientsParams::from_module(found, block);
        let sum = self.sum();
        if sum.is_empty() {
            *sum = new;
            return;
        }
        block.visit(&mut Add { sum, new });
    }

    /// Sum of the squares of all of them.
    pub fn square<B: Module>(&self, block: &B) -> f64 {
        let sum = self.sum.lock().unwrap_or_else(|p| p.into_inner());
        let mut square = Square { sum: &sum, total: 0.0 };
        block.visit(&mut square);
        square.total
    }

    /// All of them times `scale`; nothing is left here.
    pub fn take<B: Module>(&mut self, block: &B, scale: f64) -> GradientsParams {
        let sum = self.sum();
        if scale != 1.0 {
            block.visit(&mut Scale { sum, scale });
        }
        std::mem::take(sum)
    }

    /// Gives each of them, by the name that `name` has for the parameter.
    pub fn named<B: Module>(&self, block: &B, names: &ParamNames) -> NamedTensors {
        let sum = self.sum.lock().unwrap_or_else(|p| p.into_inner());
        let mut named = Named { sum: &sum, names, found: NamedTensors::new() };
        block.visit(&mut named);
        named.found
    }

    /// Takes those of `block` out of `given` in place of what is here.
    pub fn replace<B: Module>(
        &mut self,
        block: &B,
        names: &ParamNames,
        given: &mut NamedTensors,
        device: &Device,
    ) -> Result<(), ModelError> {
        self.clear();
        let mut replace = Replace { sum: self.sum(), names, given, device, outcome: Ok(()) };
        block.visit(&mut replace);
        replace.outcome
    }

    pub fn clear(&mut self) {
        *self.sum() = GradientsParams::new();
    }

    fn sum(&mut self) -> &mut GradientsParams {
        self.sum.get_mut().unwrap_or_else(|p| p.into_inner())
    }
}

struct Add<'a> {
    sum: &'a mut GradientsParams,
    new: GradientsParams,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(new) = self.new.remove::<D>(param.id) else { return };
        let sum = match self.sum.remove::<D>(param.id) {
            Some(old) => old + new,
            None => new,
        };
        self.sum.register(param.id, sum);
    }
}

struct Square<'a> {
    sum: &'a GradientsParams,
    total: f64,
}

impl ModuleVisitor for Square<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.sum.get::<D>(param.id) else { return };
        self.total += f64::from((gradient.clone() * gradient).sum().into_scalar::<f32>());
    }
}

struct Named<'a> {
    sum: &'a GradientsParams,
    names: &'a ParamNames,
    found: NamedTensors,
}

impl ModuleVisitor for Named<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.sum.get::<D>(param.id) else { return };
        let name = self.names.get(&param.id).expect("made by Params").clone();
        let data = gradient.into_data();
        let shape: Vec<usize> = data.shape().iter().copied().collect();
        let values = data.as_slice::<f32>().expect("gradients are f32");
        self.found.push((name, HostTensor::from_f32(shape, values)));
    }
}

struct Replace<'a> {
    sum: &'a mut GradientsParams,
    names: &'a ParamNames,
    given: &'a mut NamedTensors,
    device: &'a Device,
    outcome: Result<(), ModelError>,
}

impl ModuleVisitor for Replace<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.names.get(&param.id).expect("made by Params");
        let Some(i) = self.given.iter().position(|(given, _)| given == name) else { return };
        let (name, gradient) = self.given.swap_remove(i);
        let shape = param.dims();
        if gradient.dtype() != DType::F32 || gradient.shape() != shape {
            let found = gradient.shape().to_vec();
            let text = format!("{name:?} is {found:?}, the parameter is {:?}", shape);
            self.outcome = Err(ModelError::Gradient(text));
            return;
        }
        let data = float_data(gradient.into_data(), shape.to_vec());
        self.sum.register(param.id, Tensor::<D>::from_data(data, self.device));
    }
}

struct Scale<'a> {
    sum: &'a mut GradientsParams,
    scale: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.sum.remove::<D>(param.id) else { return };
        self.sum.register(param.id, gradient * self.scale);
    }
}
