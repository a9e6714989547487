//! How a segment learns.
//!
//! Training is the same arithmetic wherever the cuts are: a segment's backward pass begins at the gradient
//! that came back for its output, and ends at its input. A step is prepared by passes that only add up
//! gradients, for one micro-batch after the other, and takes effect when it is committed; until then it
//! can be forgotten and prepared again.

use burn::tensor::Tensor;

use super::{
    Activation, LossKind, Mode, ModelError, OptimizerSpec, Segment, Update, loss::LossOutput,
    segment::own,
};
use crate::{tensor::HostTensor, wire::NamedTensors};

/// A forward pass, kept until the gradient of its output comes back.
pub struct ForwardPass {
    /// Kept if the gradient has to go further back than this segment.
    input: Option<Activation>,
    output: Activation,
    /// What this segment adds to the loss by itself.
    term: Option<Tensor<1>>,
}

/// What a segment that ends in the loss gives for one micro-batch.
#[derive(Debug, Clone)]
pub struct LossPass {
    /// Mean over the micro-batch.
    pub loss: f32,
    /// Right answers; see [`LossOutput`].
    pub correct: u64,
    /// Gradient of the step's loss at the cut; empty if it was not wanted.
    pub gradient: NamedTensors,
}

impl Segment {
    /// The smashed data to send, and the pass to finish later. `want_gradient`: whether the backward
    /// pass will be asked for the gradient of `input`.
    pub fn forward(
        &mut self,
        input: &NamedTensors,
        want_gradient: bool,
    ) -> Result<(NamedTensors, ForwardPass), ModelError> {
        self.forward_protected(input, want_gradient, |_, output| (output, None))
    }

    /// The same, but what is sent is what `protect` makes of input and output; it may also give a term
    /// of the loss. Both are part of the graph.
    pub fn forward_protected(
        &mut self,
        input: &NamedTensors,
        want_gradient: bool,
        protect: impl FnOnce(&Activation, Activation) -> (Activation, Option<Tensor<1>>),
    ) -> Result<(NamedTensors, ForwardPass), ModelError> {
        let input = Activation::from_host(input, &self.device)?;
        let input = if want_gradient { input.require_grad() } else { input };
        let output = self.run_training(input.clone())?;
        let (output, term) = protect(&input, output);
        let input = want_gradient.then_some(input);
        Ok((output.clone().into_host(), ForwardPass { input, output, term }))
    }

    /// Adds the gradients of a pass; gives that of its input if it was wanted.
    pub fn backward(
        &mut self,
        pass: ForwardPass,
        gradient: &NamedTensors,
    ) -> Result<NamedTensors, ModelError> {
        let upstream = Activation::from_host(gradient, &self.device)?;
        let loss = pass.output.weighted_sum(upstream)?;
        let loss = match pass.term {
            Some(term) => loss + term,
            None => loss,
        };
        let mut gradients = loss.backward();
        let of_input = pass.input.map(|input| input.grads(&gradients).into_host());
        own(&mut self.stages).for_each(|stage| stage.accumulate(&mut gradients));
        Ok(of_input.unwrap_or_default())
    }

    /// Forward, loss and backward of a micro-batch whose loss is this `share` of the step's: the part of
    /// the step's samples (positions that count) that are in it.
    pub fn loss_pass(
        &mut self,
        activation: &NamedTensors,
        labels: &HostTensor,
        loss: LossKind,
        share: f64,
        want_gradient: bool,
    ) -> Result<LossPass, ModelError> {
        if !want_gradient && !self.has_parameters() {
            let problem = "nothing learns on either side of the cut: see train.lora";
            return Err(ModelError::Gradient(problem.into()));
        }
        let input = Activation::from_host(activation, &self.device)?;
        let input = if want_gradient { input.require_grad() } else { input };
        let output = self.run_training(input.clone())?;
        let LossOutput { loss, correct } = loss.compute(output, labels, &self.device)?;
        let value = loss.clone().into_scalar::<f32>();
        let weighted = if share == 1.0 { loss } else { loss * share };
        let mut gradients = weighted.backward();
        let gradient = match want_gradient {
            true => input.grads(&gradients).into_host(),
            false => NamedTensors::new(),
        };
        own(&mut self.stages).for_each(|stage| stage.accumulate(&mut gradients));
        Ok(LossPass { loss: value, correct, gradient })
    }

    fn run_training(&mut self, input: Activation) -> Result<Activation, ModelError> {
        let mut buffers = std::mem::take(&mut self.buffers);
        let output = self.run(input, Mode::Train, &mut buffers);
        self.buffers = buffers;
        output
    }

    /// Sum of the squares of the gradients of the step so far: the norm's share of this segment.
    pub fn gradient_square(&self) -> f64 {
        self.stages.iter().map(|stage| stage.gradient_square()).sum()
    }

    /// The gradients of the step so far, by the names of their parameters.
    pub fn gradients(&self) -> NamedTensors {
        self.stages.iter().flat_map(|stage| stage.gradients()).collect()
    }

    /// Puts these in place of the gradients of the step so far, as when several segments that are equal
    /// take a step together. Refuses gradients of parameters that are not here.
    pub fn set_gradients(&mut self, gradients: &NamedTensors) -> Result<(), ModelError> {
        let mut given = gradients.clone();
        for stage in own(&mut self.stages) {
            stage.set_gradients(&mut given, &self.device)?;
        }
        match given.first() {
            None => Ok(()),
            Some((name, _)) => {
                Err(ModelError::Gradient(format!("{name:?} is no parameter of this segment")))
            }
        }
    }

    /// Applies the step.
    pub fn commit(&mut self, optimizer: &OptimizerSpec, update: Update) {
        let buffers = std::mem::take(&mut self.buffers);
        for stage in own(&mut self.stages) {
            stage.commit(optimizer, update, &buffers);
        }
    }

    /// Drops what was prepared of a step.
    pub fn forget(&mut self) {
        self.buffers = Default::default();
        own(&mut self.stages).for_each(|stage| stage.forget());
    }

    /// Loss and number of right answers, without an update.
    pub fn evaluate(
        &self,
        activation: &NamedTensors,
        labels: &HostTensor,
        loss: LossKind,
    ) -> Result<(f32, u64), ModelError> {
        let input = Activation::from_host(activation, &self.device)?;
        let output = self.run(input, Mode::Eval, &mut Default::default())?;
        let output = loss.compute(output, labels, &self.device)?;
        Ok((output.loss.into_scalar::<f32>(), output.correct))
    }
}

/// A step of one micro-batch at the optimiser's own rate, as plain split learning takes it.
impl Segment {
    /// [`Segment::forward`] of a head.
    pub fn head_forward(
        &mut self,
        input: &NamedTensors,
    ) -> Result<(NamedTensors, ForwardPass), ModelError> {
        self.forward(input, false)
    }

    /// [`Segment::backward`] of a head, and the commit.
    pub fn head_backward(
        &mut self,
        pass: ForwardPass,
        gradient: &NamedTensors,
        optimizer: &OptimizerSpec,
    ) -> Result<(), ModelError> {
        self.backward(pass, gradient)?;
        self.commit(optimizer, Update::at(optimizer.learning_rate()));
        Ok(())
    }

    /// [`Segment::loss_pass`] of a tail, and the commit.
    pub fn tail_step(
        &mut self,
        activation: &NamedTensors,
        labels: &HostTensor,
        loss: LossKind,
        optimizer: &OptimizerSpec,
        want_gradient: bool,
    ) -> Result<LossPass, ModelError> {
        let done = self.loss_pass(activation, labels, loss, 1.0, want_gradient)?;
        self.commit(optimizer, Update::at(optimizer.learning_rate()));
        Ok(done)
    }
}
