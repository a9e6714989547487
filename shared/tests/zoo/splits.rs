//! A model in two halves, with the wire between them.

use std::{ops::Range, sync::Arc};

use cleave_shared::{
    codec::F32,
    model::{Dim, LossKind, ModelSpec, OptimizerSpec, Port, Segment, WeightFile},
    tensor::{HostTensor, batch},
    wire::{self, NamedTensors},
};

use crate::reference::{Reference, assert_close, at};

/// What the order of the same additions may change: a batch's products add in another than one sample's.
const ROUNDING: f64 = 1e-5;
/// Of a training that is compared.
pub const STEPS: usize = 20;

pub fn sgd(learning_rate: f64) -> OptimizerSpec {
    OptimizerSpec::Sgd { learning_rate, momentum: 0.9, weight_decay: 0.0 }
}

pub fn adam(learning_rate: f64) -> OptimizerSpec {
    OptimizerSpec::Adam {
        learning_rate,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    }
}

/// Stages `range`, with weights from the file.
pub fn segment(
    spec: &ModelSpec,
    file: &Arc<WeightFile>,
    range: Range<usize>,
    train: bool,
) -> Segment {
    Segment::build(spec, range, &mut file.source(spec.prefixes()), train).unwrap()
}

/// What tensors are after the link.
pub fn shipped(tensors: NamedTensors) -> NamedTensors {
    wire::decode(wire::encode(tensors, &F32), &F32).unwrap()
}

/// Inference cut at `split`; what crosses must be what the plan declares.
pub fn infer(
    spec: &ModelSpec,
    file: &Arc<WeightFile>,
    split: usize,
    input: &NamedTensors,
) -> NamedTensors {
    let count = spec.stage_count();
    let cut = segment(spec, file, 0..split, false).infer(input).unwrap();
    if split > 0 {
        assert_declared(&spec.stages()[split - 1].outputs, &cut);
    }
    let (tail, cut) = (segment(spec, file, split..count, false), shipped(cut));
    let output = shipped(tail.infer(&cut).unwrap());
    // At one cut of each model: it takes a pass for each sample.
    if split == count / 2 {
        for ((name, alone), (_, together)) in each_alone(&tail, &cut).iter().zip(&output) {
            assert_close(&format!("{name} of each sample alone"), alone, together, ROUNDING);
        }
    }
    output
}

/// The samples of a batch one by one, and their outputs as one batch: a cloud may have them together or not.
fn each_alone(tail: &Segment, cut: &NamedTensors) -> NamedTensors {
    let samples = vec![1; cut[0].1.shape()[0]];
    let apart: Vec<_> = cut.iter().map(|(_, t)| batch::split(t, &samples).unwrap()).collect();
    let sample = |at: usize| -> NamedTensors {
        cut.iter().zip(&apart).map(|((name, _), parts)| (name.clone(), parts[at].clone())).collect()
    };
    let outputs: Vec<_> = (0..samples.len()).map(|at| tail.infer(&sample(at)).unwrap()).collect();
    let together = |at: usize, name: &String| {
        let parts: Vec<_> = outputs.iter().map(|output| &output[at].1).collect();
        (name.clone(), batch::join(&parts).unwrap())
    };
    outputs[0].iter().enumerate().map(|(at, (name, _))| together(at, name)).collect()
}

fn assert_declared(ports: &[Port], tensors: &NamedTensors) {
    let declared: Vec<_> = ports.iter().map(|p| p.name.as_str()).collect();
    let names: Vec<_> = tensors.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, declared);
    for (port, (name, tensor)) in ports.iter().zip(tensors) {
        assert_eq!(tensor.dtype(), port.dtype, "{name}");
        let shape = &tensor.shape()[1..];
        assert_eq!(shape.len(), port.shape.len(), "{name}: {shape:?}, declared {:?}", port.shape);
        for (&extent, dim) in shape.iter().zip(&port.shape) {
            let fits = match *dim {
                Dim::Fixed(n) => extent == n,
                Dim::UpTo(n) => (1..=n).contains(&extent),
            };
            assert!(fits, "{name}: {shape:?}, declared {:?}", port.shape);
        }
    }
}

/// A model in training, cut at a split point.
pub struct SplitTraining {
    head: Segment,
    tail: Segment,
    loss: LossKind,
    optimizer: OptimizerSpec,
}

impl SplitTraining {
    pub fn new(
        spec: &ModelSpec,
        file: &Arc<WeightFile>,
        split: usize,
        loss: LossKind,
        optimizer: OptimizerSpec,
    ) -> Self {
        let head = segment(spec, file, 0..split, true);
        let tail = segment(spec, file, split..spec.stage_count(), true);
        Self::of([head, tail], loss, optimizer)
    }

    pub fn of([head, tail]: [Segment; 2], loss: LossKind, optimizer: OptimizerSpec) -> Self {
        Self { head, tail, loss, optimizer }
    }

    pub fn into_halves(self) -> [Segment; 2] {
        [self.head, self.tail]
    }

    /// One step; the loss before it.
    pub fn step(&mut self, input: &NamedTensors, labels: &HostTensor) -> f32 {
        let (cut, pass) = self.head.head_forward(input).unwrap();
        let wanted = self.head.has_parameters();
        let (loss, optimizer) = (self.loss, &self.optimizer);
        let done = self.tail.tail_step(&shipped(cut), labels, loss, optimizer, wanted).unwrap();
        if wanted {
            self.head.head_backward(pass, &shipped(done.gradient), optimizer).unwrap();
        }
        done.loss
    }

    /// Takes the reference's steps, whose inputs are `inputs`; the worst difference of a loss from those
    /// under `name`, which is `bound` at most.
    pub fn losses_are_alike(
        &mut self,
        what: &str,
        reference: &Reference,
        name: &str,
        inputs: impl Fn(usize) -> NamedTensors,
        bound: f64,
    ) -> f64 {
        let labels = reference.tensor("step_labels");
        let losses: Vec<f32> = (0..STEPS).map(|i| self.step(&inputs(i), &at(labels, i))).collect();
        let losses = HostTensor::from_f32(vec![STEPS], &losses);
        let expected = reference.tensor(&format!("{name}/losses"));
        assert_close(&format!("{what}: losses"), &losses, expected, bound)
    }

    /// Inference with the weights as they are now.
    pub fn infer(&self, input: &NamedTensors) -> NamedTensors {
        let cut = self.head.infer(input).unwrap();
        self.tail.infer(&shipped(cut)).unwrap()
    }

    /// Weights and buffers of both halves.
    pub fn weights(&self) -> NamedTensors {
        self.head.weights().into_iter().chain(self.tail.weights()).collect()
    }
}
