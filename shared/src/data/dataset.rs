//! What a data set is: named inputs, a target, and samples whose bytes can be copied into a batch.
//!
//! An input is FP32 (pixels, features) or INT64 (token ids, a padding mask), with a shape that every
//! sample shares; shorter texts are padded. [`gather`] makes samples a [`Batch`] for the model.

use serde::{Deserialize, Serialize};

use super::Split;
use crate::{
    model::Port,
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// Name of the input tensor of a model that has only one.
pub const INPUT: &str = "x";

/// What is to be learned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Target {
    /// One class of each sample: INT64, `[batch]`, an index of `names`.
    Classes { names: Vec<String> },
    /// The next token at each position: INT64, `[batch, length]`, below `vocabulary` or
    /// [`IGNORED`](crate::model::loss::IGNORED).
    Tokens { length: usize, vocabulary: usize },
    /// Numbers: FP32, `[batch, names]`.
    Values { names: Vec<String> },
}

impl Target {
    /// Classes that are numbers from 0.
    pub fn numbered(classes: usize) -> Self {
        Target::Classes { names: (0..classes).map(|c| c.to_string()).collect() }
    }

    /// Dtype and shape of one sample's label.
    pub fn label(&self) -> (DType, Vec<usize>) {
        match self {
            Target::Classes { .. } => (DType::I64, vec![]),
            Target::Tokens { length, .. } => (DType::I64, vec![*length]),
            Target::Values { names } => (DType::F32, vec![names.len()]),
        }
    }
}

/// Samples with labels, in a fixed order.
pub trait Dataset: Send + Sync {
    fn name(&self) -> &str;
    /// Number of samples.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What one sample has: FP32 or INT64, every extent fixed; at least one.
    fn inputs(&self) -> Vec<Port>;
    fn target(&self) -> Target;
    /// Appends one input of one sample, row-major and little-endian; `input` counts
    /// [`Dataset::inputs`].
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`]; [`Dataset::write_label`] likewise.
    fn write_input(&self, index: usize, input: usize, out: &mut Vec<u8>);
    /// Appends the label of one sample as [`Target::label`] says.
    fn write_label(&self, index: usize, out: &mut Vec<u8>);
    /// Which samples are for what; by `seed`, unless the set was split when it was prepared.
    fn split(&self, seed: u64) -> Split {
        Split::new(self.len(), seed)
    }
}

/// What one step trains on, or one evaluation measures with.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[batch, ...]` each; one input alone is named [`INPUT`].
    pub inputs: NamedTensors,
    /// `[batch, ...]`; see [`Target`].
    pub labels: HostTensor,
}

/// The samples at `indices`, in that order.
///
/// # Panics
/// If an index is not below the data set's length; a [`Split`] of that length has only such.
pub fn gather(dataset: &dyn Dataset, indices: &[usize]) -> Batch {
    gather_noted(dataset, indices, || ())
}

/// The same; `noted` is called after each input of each sample.
pub(super) fn gather_noted(dataset: &dyn Dataset, indices: &[usize], noted: impl Fn()) -> Batch {
    let ports = dataset.inputs();
    let single = ports.len() == 1;
    let input = |(number, port): (usize, Port)| {
        let mut bytes = Vec::with_capacity(indices.len() * port.bytes());
        for &index in indices {
            dataset.write_input(index, number, &mut bytes);
            noted();
        }
        let tensor = batched(port.dtype, indices.len(), &port.largest(), bytes);
        (if single { INPUT.into() } else { port.name }, tensor)
    };
    let inputs = ports.into_iter().enumerate().map(input).collect();
    let (dtype, shape) = dataset.target().label();
    let mut bytes = Vec::new();
    indices.iter().for_each(|&index| dataset.write_label(index, &mut bytes));
    Batch { inputs, labels: batched(dtype, indices.len(), &shape, bytes) }
}

fn batched(dtype: DType, samples: usize, shape: &[usize], bytes: Vec<u8>) -> HostTensor {
    let shape = [&[samples], shape].concat();
    HostTensor::new(dtype, shape, bytes.into()).expect("a data set writes what its ports say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataSpec, digits};

    #[test]
    fn gather_keeps_the_order_of_the_indices() {
        let dataset = DataSpec::Digits.open().unwrap();
        let batch = gather(&*dataset, &[7, 3, 3]);
        assert_eq!(batch.labels.shape(), [3]);
        assert_eq!(batch.labels.to_i64().unwrap(), [7, 3, 3]);
        let [(name, inputs)] = &batch.inputs[..] else { panic!("one input") };
        assert_eq!((name.as_str(), inputs.dtype()), (INPUT, DType::F32));
        assert_eq!(inputs.shape(), [3, 1, 8, 8]);
        let values = inputs.to_f32().unwrap();
        assert_eq!(values[64..128], values[128..]);
        let mut seventh = Vec::new();
        digits().unwrap().write_pixels(7, &mut seventh);
        assert_eq!(values[..64], seventh);
    }

    #[test]
    fn an_empty_batch_is_possible() {
        let batch = gather(&*DataSpec::Digits.open().unwrap(), &[]);
        assert_eq!(batch.inputs[0].1.shape(), [0, 1, 8, 8]);
    }
}
