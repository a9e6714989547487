//! The gradients of one step, between the backward passes that add to them and the commit that applies
//! them.
//!
//! A step may be cut into micro-batches, and nothing of it may be applied before both halves have all of
//! it: what is added up here can be forgotten at any time, and the step taken again.

use std::sync::Mutex;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Gradients, Tensor},
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
