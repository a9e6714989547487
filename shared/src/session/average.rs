//! FedAvg (McMahan et al. 2017): the mean of several edges' tensors, weighted by their samples.
//!
//! Edges finish in any order, and a mean of floats depends on the order in which they are added. So the
//! sum is kept in fixed point, where addition is exact: whoever comes first, the mean is the same bit
//! for bit, and one sum is all that is kept however many edges there are.

use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// 2^64 units are 1: finer than half the last bit of any float down to 10⁻¹², with room for a sum of
/// up to 2^62.
const UNIT: f64 = 18_446_744_073_709_551_616.0;
/// Largest value times samples that is added.
const MOST: f64 = (1u64 << 61) as f64;

/// A weighted sum on its way to a mean.
#[derive(Debug, Clone, Default)]
pub struct Average {
    samples: u64,
    tensors: Vec<Sum>,
}

#[derive(Debug, Clone)]
struct Sum {
    name: String,
    shape: Vec<usize>,
    values: Vec<i128>,
}

/// Why tensors cannot be averaged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AverageError {
    #[error("tensors {found}, but those of the others are {expected}")]
    Names { found: String, expected: String },
    #[error("tensor {name} is {found:?}, but that of the others is {expected:?}")]
    Shape { name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("tensor {name} is {found}, only FP32 can be averaged")]
    DType { name: String, found: &'static str },
    #[error("tensor {name} has the value {value}, which is not a weight: training diverged")]
    Value { name: String, value: f32 },
    #[error("no samples stand behind the mean")]
    Empty,
}

impl Average {
    /// Samples added so far.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Adds tensors of that many samples. Refuses others than the first ones', and values that are not
    /// finite; the sum is then as it was.
    pub fn add(&mut self, samples: u64, tensors: &NamedTensors) -> Result<(), AverageError> {
        if samples == 0 {
            return Ok(());
        }
        let values = tensors.iter().map(|(name, tensor)| checked(name, tensor, samples));
        let values = values.collect::<Result<Vec<Vec<f32>>, _>>()?;
        if self.samples == 0 {
            self.tensors = tensors.iter().map(|(name, tensor)| Sum::zero(name, tensor)).collect();
        }
        self.check_same(tensors)?;
        for (sum, values) in self.tensors.iter_mut().zip(values) {
            for (total, value) in sum.values.iter_mut().zip(values) {
                *total += fixed(value) * i128::from(samples);
            }
        }
        self.samples += samples;
        Ok(())
    }

    /// The mean, in the order of the first tensors added.
    pub fn mean(&self) -> Result<NamedTensors, AverageError> {
        if self.samples == 0 {
            return Err(AverageError::Empty);
        }
        Ok(self.scaled(UNIT * self.samples as f64))
    }

    /// The weighted sum itself.
    pub fn sum(&self) -> Result<NamedTensors, AverageError> {
        if self.samples == 0 {
            return Err(AverageError::Empty);
        }
        Ok(self.scaled(UNIT))
    }

    fn scaled(&self, divisor: f64) -> NamedTensors {
        let tensor = |sum: &Sum| {
            let values = sum.values.iter().map(|&v| (v as f64 / divisor) as f32);
            let values: Vec<f32> = values.collect();
            (sum.name.clone(), HostTensor::from_f32(sum.shape.clone(), &values))
        };
        self.tensors.iter().map(tensor).collect()
    }

    fn check_same(&self, tensors: &NamedTensors) -> Result<(), AverageError> {
        let expected = self.tensors.iter().map(|sum| sum.name.as_str());
        if !expected.clone().eq(tensors.iter().map(|(name, _)| name.as_str())) {
            let list = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(", ");
            return Err(AverageError::Names {
                found: list(&mut tensors.iter().map(|(name, _)| name.as_str())),
                expected: list(&mut expected.into_iter()),
            });
        }
        for (sum, (name, tensor)) in self.tensors.iter().zip(tensors) {
            if sum.shape != tensor.shape() {
                let (name, expected) = (name.clone(), sum.shape.clone());
                return Err(AverageError::Shape { name, found: tensor.shape().into(), expected });
            }
        }
        Ok(())
    }
}

impl Sum {
    fn zero(name: &str, tensor: &HostTensor) -> Self {
        let shape = tensor.shape().to_vec();
        let values = vec![0; shape.iter().product()];
        Self { name: name.into(), shape, values }
    }
}

fn fixed(value: f32) -> i128 {
    (f64::from(value) * UNIT).round() as i128
}

fn checked(name: &str, tensor: &HostTensor, samples: u64) -> Result<Vec<f32>, AverageError> {
    if tensor.dtype() != DType::F32 {
        return Err(AverageError::DType { name: name.into(), found: tensor.dtype().name() });
    }
    let values = tensor.to_f32().expect("FP32");
    // The bound leaves room for a million edges.
    let most = (MOST / samples as f64 / 1e6) as f32;
    match values.iter().find(|value| value.is_nan() || value.abs() > most) {
        Some(&value) => Err(AverageError::Value { name: name.into(), value }),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensors(values: &[f32]) -> NamedTensors {
        vec![("w".into(), HostTensor::from_f32(vec![values.len()], values))]
    }

    fn mean(parts: &[(u64, Vec<f32>)]) -> Vec<f32> {
        let mut average = Average::default();
        for (samples, values) in parts {
            average.add(*samples, &tensors(values)).unwrap();
        }
        average.mean().unwrap()[0].1.to_f32().unwrap()
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter_and_the_mean_is_right(
            parts in prop::collection::vec((1u64..5000, prop::collection::vec(-9f32..9.0, 3)), 1..20),
            seed in 0usize..1000,
        ) {
            let found = mean(&parts);
            let mut other = parts.clone();
            let turn = seed % other.len();
            other.rotate_left(turn);
            other.reverse();
            prop_assert_eq!(&found, &mean(&other));
            let total: u64 = parts.iter().map(|(n, _)| n).sum();
            for (i, &mean) in found.iter().enumerate() {
                let sum: f64 = parts.iter().map(|(n, v)| *n as f64 * f64::from(v[i])).sum();
                let expected = sum / total as f64;
                prop_assert!((f64::from(mean) - expected).abs() < 1e-6, "{} {}", mean, expected);
            }
        }

        #[test]
        fn equal_tensors_are_their_own_mean(
            values in prop::collection::vec(-1e4f32..1e4, 1..9),
            samples in prop::collection::vec(1u64..100_000, 1..9),
        ) {
            let parts: Vec<_> = samples.into_iter().map(|n| (n, values.clone())).collect();
            prop_assert_eq!(mean(&parts), values);
        }
    }

    #[test]
    fn samples_are_weights() {
        assert_eq!(mean(&[(1, vec![1.0]), (3, vec![5.0]), (0, vec![99.0])]), [4.0]);
    }

    #[test]
    fn what_differs_is_refused_and_changes_nothing() {
        let mut average = Average::default();
        assert_eq!(average.mean(), Err(AverageError::Empty));
        average.add(2, &tensors(&[1.0, 2.0])).unwrap();
        let other = vec![("v".into(), HostTensor::from_f32(vec![2], &[0.0, 0.0]))];
        let refused = [
            (average.clone().add(1, &other), "tensors v, but those of the others are w"),
            (average.add(1, &tensors(&[1.0])), "tensor w is [1], but that of the others is [2]"),
            (average.add(1, &tensors(&[f32::NAN, 0.0])), "tensor w has the value NaN"),
        ];
        for (outcome, text) in refused {
            let error = outcome.unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        let labels = vec![("w".into(), HostTensor::from_i64(vec![2], &[1, 2]))];
        assert!(matches!(average.add(1, &labels), Err(AverageError::DType { .. })));
        assert_eq!(average.mean().unwrap(), tensors(&[1.0, 2.0]));
    }
}
