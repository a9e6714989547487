//! Parallel split learning with a joint batch (Jeon & Kim 2020): the activations of all edges are one
//! batch, the tail learns once from the mean over all its samples, each edge gets its rows of the
//! gradient.
//!
//! An edge's rows carry the joint batch's 1/n, so the sum of the heads' gradients is the gradient of a
//! head that had seen the joint batch. Every edge applies that sum: heads stay equal, and what is learned
//! is what one edge would learn from the joint batches.

use cleave_shared::{
    model::{ModelError, Segment},
    session::GroupSpec,
    tensor::{DType, HostTensor, batch},
    wire::NamedTensors,
};

use super::strategy::{EdgeBatch, EdgeStep, Heads, Pace, Strategy, update};

pub struct Parallel;

impl Strategy for Parallel {
    fn pace(&self) -> Pace {
        Pace::InStep
    }

    fn heads(&self) -> Heads {
        Heads::Equal
    }

    fn step(
        &self,
        tail: &mut Segment,
        batches: Vec<EdgeBatch>,
        spec: &GroupSpec,
        learning_rate: f64,
    ) -> Result<Vec<EdgeStep>, ModelError> {
        let rows: Vec<(usize, usize)> = batches
            .iter()
            .map(|b| (b.edge, b.labels.shape().first().copied().unwrap_or(0)))
            .collect();
        let (activation, labels) = join(batches)?;
        let (done, samples) = update(tail, &activation, &labels, spec, learning_rate)?;
        let mut start = 0;
        let part = |(edge, count): (usize, usize)| {
            let gradient = rows_of(&done.gradient, start, count);
            start += count;
            EdgeStep { edge, loss: done.loss, correct: done.correct, samples, gradient }
        };
        Ok(rows.into_iter().map(part).collect())
    }
}

/// All batches as one, in their order.
fn join(batches: Vec<EdgeBatch>) -> Result<(NamedTensors, HostTensor), ModelError> {
    let names: Vec<String> =
        batches.iter().take(1).flat_map(|b| &b.activation).map(|(n, _)| n.clone()).collect();
    let mut joint = NamedTensors::new();
    for (i, name) in names.into_iter().enumerate() {
        let parts = batches.iter().map(|b| {
            let part = b.activation.get(i).filter(|(n, _)| *n == name).map(|(_, t)| t);
            part.ok_or_else(|| unlike(b.edge, &name))
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let tensor = batch::join(&parts).ok_or_else(|| unlike(batches[0].edge, &name))?;
        joint.push((name, tensor));
    }
    let labels: Vec<&HostTensor> = batches.iter().map(|b| &b.labels).collect();
    let labels = batch::join(&labels)
        .ok_or_else(|| ModelError::Labels("the edges' labels differ in shape".into()))?;
    Ok((joint, labels))
}

fn unlike(edge: usize, name: &str) -> ModelError {
    ModelError::Input {
        stage: "joint batch".into(),
        expected: format!("{name:?} with the same shape from every edge"),
        found: format!("another from edge {edge} than from the others"),
    }
}

/// Rows `start..start + count` of every tensor.
fn rows_of(tensors: &NamedTensors, start: usize, count: usize) -> NamedTensors {
    let cut = |(name, t): &(String, HostTensor)| {
        let mut shape = t.shape().to_vec();
        let row = t.data().len() / shape[0].max(1);
        shape[0] = count;
        let data = t.data().slice(start * row..(start + count) * row);
        debug_assert_eq!(t.dtype(), DType::F32);
        (name.clone(), HostTensor::new(t.dtype(), shape, data).expect("whole rows"))
    };
    tensors.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(edge: usize, values: &[f32], labels: &[i64]) -> EdgeBatch {
        let rows = labels.len();
        let x = HostTensor::from_f32(vec![rows, values.len() / rows], values);
        let labels = HostTensor::from_i64(vec![rows], labels);
        EdgeBatch { edge, activation: vec![("x".into(), x)], labels }
    }

    #[test]
    fn batches_are_joined_and_cut_by_rows() {
        let (joint, labels) =
            join(vec![batch(0, &[1.0, 2.0], &[7]), batch(2, &[3.0, 4.0, 5.0, 6.0], &[8, 9])])
                .unwrap();
        assert_eq!(joint[0].1, HostTensor::from_f32(vec![3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(labels.to_i64().unwrap(), [7, 8, 9]);
        let back = rows_of(&joint, 1, 2);
        assert_eq!(back[0].1, HostTensor::from_f32(vec![2, 2], &[3.0, 4.0, 5.0, 6.0]));
        let error = join(vec![batch(0, &[1.0], &[7]), batch(1, &[1.0, 2.0], &[7])]).unwrap_err();
        assert!(error.to_string().contains("same shape from every edge"), "{error}");
    }
}
