//! Where a stage's initial parameters come from: a seed, or tensors that were loaded.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::ModelError;
use crate::{tensor::HostTensor, wire::NamedTensors};

/// Gives each parameter its initial value, by full name (`conv1.weight`).
pub trait Weights {
    /// Values of a parameter of this shape; `fan_in` is the number of inputs to one output.
    fn values(
        &mut self,
        name: &str,
        shape: &[usize],
        fan_in: usize,
    ) -> Result<Vec<f32>, ModelError>;
}

/// Random weights, uniform in ±1/√fan_in (PyTorch's default for linear and convolution layers).
///
/// Every parameter has its own stream, seeded by SHA-256 of seed and name: the value does not
/// depend on which other stages a node builds, so any cut of one seed is the same model.
pub struct SeededWeights(pub u64);

impl Weights for SeededWeights {
    fn values(
        &mut self,
        name: &str,
        shape: &[usize],
        fan_in: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update(name.as_bytes());
        let mut rng = ChaCha8Rng::from_seed(hash.finalize().into());
        let bound = 1.0 / (fan_in as f32).sqrt();
        Ok((0..shape.iter().product()).map(|_| rng.random_range(-bound..bound)).collect())
    }
}

/// Weights read from a file or from the peer; a missing or misshapen one is an error by name.
pub struct LoadedWeights(HashMap<String, HostTensor>);

impl LoadedWeights {
    pub fn new(tensors: NamedTensors) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl Weights for LoadedWeights {
    fn values(
        &mut self,
        name: &str,
        shape: &[usize],
        _fan_in: usize,
    ) -> Result<Vec<f32>, ModelError> {
        let fail = |problem: String| ModelError::Weight { name: name.into(), problem };
        let tensor = self.0.get(name).ok_or_else(|| fail("is missing".into()))?;
        if tensor.shape() != shape {
            return Err(fail(format!("expected shape {shape:?}, found {:?}", tensor.shape())));
        }
        tensor.to_f32().map_err(|e| fail(e.to_string()))
    }
}
