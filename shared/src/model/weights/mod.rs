//! Where a stage's parameters come from: a seed, tensors that were loaded, or a file.

mod file;

use std::collections::HashMap;

use burn::tensor::TensorData;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

pub use self::file::{FileWeights, WeightFile, WeightFileError};
use super::{Init, ModelError, ParamSpec, activation::float_data};
use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// Gives each parameter its value, by full name (`conv1.weight`).
pub trait Weights {
    /// FP32 values of a parameter, of exactly its shape.
    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError>;

    /// Whether there is a tensor of this name; one who makes them up has all.
    fn has(&self, _name: &str) -> bool {
        true
    }

    /// The same for a buffer, which is not trained.
    fn buffer(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        self.data(param)
    }
}

/// Random weights by each parameter's own distribution.
///
/// Every parameter has its own stream, seeded by SHA-256 of seed and name: the value does not
/// depend on which other stages a node builds, so any cut of one seed is the same model.
pub struct SeededWeights(pub u64);

impl Weights for SeededWeights {
    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update(param.name.as_bytes());
        let mut rng = ChaCha8Rng::from_seed(hash.finalize().into());
        let count: usize = param.shape.iter().product();
        let values: Vec<f32> = match param.init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in as f32).sqrt();
                (0..count).map(|_| rng.random_range(-bound..bound)).collect()
            }
            Init::Normal(std) => normal(&mut rng, count, std),
            Init::KaimingFanOut(fan_out) => normal(&mut rng, count, (2.0 / fan_out as f32).sqrt()),
        };
        Ok(TensorData::new(values, param.shape.to_vec()))
    }
}

/// Box and Muller's transform, two values a draw.
fn normal(rng: &mut ChaCha8Rng, count: usize, std: f32) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random_range(0.0f32..1.0)).ln()).sqrt() * std;
        let angle = rng.random_range(0.0..std::f32::consts::TAU);
        values.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    values.truncate(count);
    values
}

/// Weights read from a checkpoint or from the peer; a missing or misshapen one is an error by name.
pub struct LoadedWeights(HashMap<String, HostTensor>);

impl LoadedWeights {
    pub fn new(tensors: NamedTensors) -> Self {
        Self(tensors.into_iter().collect())
    }
}

impl LoadedWeights {
    /// The first dimension of a matrix `[rank, columns]` that must be there.
    pub(super) fn rank(&self, name: &str, columns: usize) -> Result<usize, ModelError> {
        let fail = |problem: String| ModelError::Weight { name: name.into(), problem };
        let tensor = self.0.get(name).ok_or_else(|| fail("is missing".into()))?;
        match *tensor.shape() {
            [rank, found] if found == columns && rank > 0 => Ok(rank),
            ref found => Err(fail(format!("expected shape [rank, {columns}], found {found:?}"))),
        }
    }
}

impl Weights for LoadedWeights {
    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        let fail = |problem: String| ModelError::Weight { name: param.name.into(), problem };
        let tensor = self.0.get(param.name).ok_or_else(|| fail("is missing".into()))?;
        if tensor.shape() != param.shape {
            let (expected, found) = (param.shape, tensor.shape());
            return Err(fail(format!("expected shape {expected:?}, found {found:?}")));
        }
        if tensor.dtype() != DType::F32 {
            return Err(fail(format!("expected FP32, found {}", tensor.dtype().name())));
        }
        Ok(float_data(tensor.data().clone(), param.shape.to_vec()))
    }
}
