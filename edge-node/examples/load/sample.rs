//! What is asked about: values drawn from a seed, the same in each run.

use cleave_shared::{
    model::ModelSpec,
    profile::sample_input,
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// FP32 from 0 to 1, as the pixels of an image.
pub fn floats(shape: Vec<usize>, seed: u64) -> HostTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|_| rng.random()).collect();
    HostTensor::from_f32(shape, &values)
}

/// One sample by the names that stages use. What is no FP32, such as token ids, is the same for all
/// seeds; `length` is the extent of what varies.
pub fn sample(spec: &ModelSpec, length: usize, seed: u64) -> NamedTensors {
    let drawn = |tensor: HostTensor| match tensor.dtype() {
        DType::F32 => floats(tensor.shape().to_vec(), seed),
        _ => tensor,
    };
    let inputs = sample_input(spec, 1, length).into_iter();
    inputs.map(|(name, tensor)| (name, drawn(tensor))).collect()
}
