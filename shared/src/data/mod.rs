//! What a node trains on and measures with: labelled images, in an order that a seed decides.
//!
//! A [`DataSpec`] (from the config) opens a [`Dataset`]: the digits embedded in the binary, or a
//! pair of IDX files, the format of MNIST. [`Split`] deals its samples into training, validation
//! and test parts, [`BatchPlan`] says which of them step `n` trains on, [`gather`] makes those a
//! [`Batch`] for the model. Nothing here keeps a position: the batch of a step follows from the
//! seed and the step alone, so a run resumed from any checkpoint sees the batches it would have.

mod digits;
mod idx;
mod plan;
mod shuffle;
mod split;

use std::{io, path::PathBuf, sync::Arc};

pub use self::{
    digits::digits,
    idx::{IdxDataset, IdxError},
    plan::BatchPlan,
    split::{Part, Split},
};
use crate::{tensor::HostTensor, wire::NamedTensors};

/// Name of the one input tensor of a [`Batch`].
pub const INPUT: &str = "x";

/// Labelled samples of one shape, in a fixed order.
pub trait Dataset: Send + Sync {
    fn name(&self) -> &str;
    /// Number of samples.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Channels, height, width.
    fn sample_shape(&self) -> [usize; 3];
    /// Labels are in `0..classes`.
    fn classes(&self) -> usize;
    /// Appends the values of one sample, normalised to `0.0..=1.0`.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`]; [`Dataset::label`] likewise.
    fn write_input(&self, index: usize, out: &mut Vec<f32>);
    fn label(&self, index: usize) -> i64;
}

/// Why there is nothing to train on.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("data file {}: {source}; check the paths of the data set", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("data file {file}: {source}")]
    Idx { file: String, source: IdxError },
    #[error(
        "{images} images in {images_file}, {labels} labels in {labels_file}: \
         give the two files of one set"
    )]
    Counts { images: usize, images_file: String, labels: usize, labels_file: String },
    #[error(
        "embedded {file} does not match data/digits/SHA256SUMS: restore data/digits and rebuild"
    )]
    Checksum { file: &'static str },
    #[error("no samples to make batches of: the data set is too small to split, give a larger one")]
    NoSamples,
    #[error("batch size 0: set it to at least 1")]
    BatchSize,
}

/// A data set by kind; a new kind is one file and one variant here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataSpec {
    /// The 8 x 8 digits embedded in the binary.
    #[serde(deserialize_with = "no_fields")]
    Digits,
    /// Images and labels in IDX files, uncompressed.
    Idx { images: PathBuf, labels: PathBuf },
}

/// serde does not deny unknown fields next to the tag of a unit variant; this does.
fn no_fields<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    serde::Deserialize::deserialize(deserializer).map(|Nothing {}| ())
}

impl DataSpec {
    /// Reads and checks the whole set.
    pub fn open(&self) -> Result<Arc<dyn Dataset>, DataError> {
        Ok(match self {
            DataSpec::Digits => Arc::new(digits()?),
            DataSpec::Idx { images, labels } => Arc::new(IdxDataset::open(images, labels)?),
        })
    }
}

/// What one step trains on, or one evaluation measures with.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// One FP32 tensor, [`INPUT`], of shape `[batch, channels, height, width]`.
    pub inputs: NamedTensors,
    /// INT64, of shape `[batch]`.
    pub labels: HostTensor,
}

/// The samples at `indices`, in that order.
///
/// # Panics
/// If an index is not below the data set's length; a [`Split`] of that length has only such.
pub fn gather(dataset: &dyn Dataset, indices: &[usize]) -> Batch {
    let [channels, height, width] = dataset.sample_shape();
    let mut values = Vec::with_capacity(indices.len() * channels * height * width);
    for &index in indices {
        dataset.write_input(index, &mut values);
    }
    let labels: Vec<i64> = indices.iter().map(|&index| dataset.label(index)).collect();
    let shape = vec![indices.len(), channels, height, width];
    Batch {
        inputs: vec![(INPUT.into(), HostTensor::from_f32(shape, &values))],
        labels: HostTensor::from_i64(vec![indices.len()], &labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

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
        dataset.write_input(7, &mut seventh);
        assert_eq!(values[..64], seventh);
    }

    #[test]
    fn an_empty_batch_is_possible() {
        let batch = gather(&*DataSpec::Digits.open().unwrap(), &[]);
        assert_eq!(batch.inputs[0].1.shape(), [0, 1, 8, 8]);
    }

    #[test]
    fn a_spec_is_written_by_kind() {
        let idx = DataSpec::Idx { images: "a".into(), labels: "b".into() };
        for (spec, json) in [
            (DataSpec::Digits, r#"{"kind":"digits"}"#),
            (idx, r#"{"kind":"idx","images":"a","labels":"b"}"#),
        ] {
            assert_eq!(serde_json::to_string(&spec).unwrap(), json);
            assert_eq!(serde_json::from_str::<DataSpec>(json).unwrap(), spec);
        }
    }

    #[test]
    fn a_spec_refuses_what_it_does_not_know() {
        for json in [
            r#"{"kind":"digits","images":"a"}"#,
            r#"{"kind":"idx","images":"a","labels":"b","scale":2}"#,
            r#"{"kind":"idx","images":"a"}"#,
            r#"{"kind":"mnist"}"#,
        ] {
            assert!(serde_json::from_str::<DataSpec>(json).is_err(), "{json}");
        }
    }
}
