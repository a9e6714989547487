//! What a topology is, behind one trait: who computes when, whose tail learns, what becomes of heads.

use cleave_shared::{
    model::{LossPass, ModelError, Segment, Update},
    session::{GroupSpec, TopologyKind},
    tensor::HostTensor,
    wire::NamedTensors,
};

use super::{
    parallel::Parallel, sequential::Sequential, splitfed_v1::SplitFedV1, splitfed_v2::SplitFedV2,
};

/// One edge's part of a step.
pub struct EdgeBatch {
    pub edge: usize,
    pub activation: NamedTensors,
    pub labels: HostTensor,
}

/// What an edge is answered.
pub struct EdgeStep {
    pub edge: usize,
    pub loss: f32,
    pub correct: u64,
    /// Samples (positions) that loss and right answers are of.
    pub samples: u64,
    pub gradient: NamedTensors,
}

/// Who computes at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// One edge has its turn after the other.
    OneByOne,
    /// Each edge goes at its own speed.
    Alone,
    /// A step begins when all edges of the round have sent theirs.
    InStep,
}

/// What becomes of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// The head, with its optimiser, goes on to the next edge.
    Travel,
    /// Each edge learns from the same head; at the round's end the mean is the next. Optimisers start
    /// anew with each turn, as FedAvg's do.
    Averaged,
    /// All edges have the same head all the time: each step applies the sum of their gradients.
    Equal,
}

/// One topology of several edges.
pub trait Strategy: Send + Sync {
    fn pace(&self) -> Pace;

    fn heads(&self) -> Heads;

    /// Whether each turn has a tail of its own, and the mean of them is the group's next.
    fn own_tails(&self) -> bool {
        false
    }

    /// The tail learns from the batches of a step, which are in the order of the edges' numbers.
    fn step(
        &self,
        tail: &mut Segment,
        batches: Vec<EdgeBatch>,
        spec: &GroupSpec,
        learning_rate: f64,
    ) -> Result<Vec<EdgeStep>, ModelError> {
        batches.into_iter().map(|batch| learn(tail, batch, spec, learning_rate)).collect()
    }
}

/// The strategy of a group's topology; none of one for a single edge.
pub fn strategy(kind: TopologyKind) -> Option<Box<dyn Strategy>> {
    match kind {
        TopologyKind::Sequential => Some(Box::new(Sequential)),
        TopologyKind::SplitFedV1 => Some(Box::new(SplitFedV1)),
        TopologyKind::SplitFedV2 => Some(Box::new(SplitFedV2)),
        TopologyKind::Parallel => Some(Box::new(Parallel)),
        TopologyKind::Vanilla | TopologyKind::UShaped => None,
    }
}

/// One update of the tail from one batch.
pub fn learn(
    tail: &mut Segment,
    batch: EdgeBatch,
    spec: &GroupSpec,
    learning_rate: f64,
) -> Result<EdgeStep, ModelError> {
    let EdgeBatch { edge, activation, labels } = batch;
    let (done, samples) = update(tail, &activation, &labels, spec, learning_rate)?;
    let LossPass { loss, correct, gradient } = done;
    Ok(EdgeStep { edge, loss, correct, samples, gradient })
}

/// One update of the tail; what came of it, and how many samples there were.
pub fn update(
    tail: &mut Segment,
    activation: &NamedTensors,
    labels: &HostTensor,
    spec: &GroupSpec,
    learning_rate: f64,
) -> Result<(LossPass, u64), ModelError> {
    let training = &spec.training;
    let done = tail.loss_pass(activation, labels, training.loss, 1.0, true);
    // What a refused batch added up must not be part of the next.
    let done = done.inspect_err(|_| tail.forget())?;
    tail.commit(&training.optimizer, Update::at(learning_rate));
    Ok((done, labels.shape().iter().product::<usize>() as u64))
}
