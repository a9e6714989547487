//! Some elements of each sample, chosen by chance; the others decode to zero.
//!
//! First the seed, 64 bits, from which both sides find the same places, equal for all samples; then the
//! values that are kept, FP32.
//! By itself an encoding is multiplied by how many elements there are for each that is kept, so that the mean
//! over seeds is the tensor (Wangni et al., NeurIPS 2018). Where what is left out is added to what is sent
//! next, that factor would send too much, and is left away (Stich et al., NeurIPS 2018): see
//! [`super::Sender`]. NaN and infinity stay what they are if they are chosen.

use bytes::Bytes;

use super::{
    Codec, Share,
    dither::Draws,
    sparse::{Samples, read_values, write_values},
    words::{into_bytes, words},
};
use crate::tensor::{DType, HostTensor, TensorError};

/// Bytes of the seed.
const SEED: usize = 8;

pub struct RandK {
    name: String,
    share: Share,
}

impl RandK {
    pub fn new(share: Share) -> Self {
        Self { name: format!("randk:{share}"), share }
    }

    fn samples(&self, shape: &[usize]) -> Result<Samples, TensorError> {
        Samples::of(shape, self.share)
    }

    fn write(&self, tensor: HostTensor, seed: u64, scaled: bool) -> Bytes {
        let samples = self.samples(tensor.shape()).expect("a tensor that is in memory");
        let factor = match scaled {
            true => samples.elements as f32 / samples.kept.max(1) as f32,
            false => 1.0,
        };
        let data = tensor.into_data();
        let values = words::<f32>(&data);
        let mut out = Vec::with_capacity(SEED + 4 * samples.total_kept());
        out.extend_from_slice(&seed.to_le_bytes());
        let chosen = chosen(seed, samples);
        for sample in values.chunks(samples.elements.max(1)) {
            write_values(chosen.iter().map(|&at| sample[at] * factor), &mut out);
        }
        out.into()
    }
}

impl Codec for RandK {
    fn name(&self) -> &str {
        &self.name
    }

    /// The same places each time, so that the same request has the same answer.
    fn encode(&self, tensor: HostTensor) -> Bytes {
        self.write(tensor, 0, true)
    }

    fn encode_seeded(&self, tensor: HostTensor, seed: u64) -> Bytes {
        self.write(tensor, seed, true)
    }

    fn encode_with_rest(&self, tensor: HostTensor, seed: u64) -> Bytes {
        self.write(tensor, seed, false)
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        let samples = self.samples(&shape)?;
        let expected = SEED + 4 * samples.total_kept();
        let seed = data.first_chunk::<SEED>().filter(|_| data.len() == expected);
        let Some(seed) = seed.map(|seed| u64::from_le_bytes(*seed)) else {
            let found = data.len();
            return Err(TensorError::Length { shape, dtype: "FP32", expected, found });
        };
        let mut values = vec![0f32; samples.total()];
        let mut kept = read_values(&data[SEED..]);
        let chosen = chosen(seed, samples);
        for sample in values.chunks_mut(samples.elements.max(1)) {
            for (&at, value) in chosen.iter().zip(&mut kept) {
                sample[at] = value;
            }
        }
        HostTensor::new(DType::F32, shape, into_bytes(values))
    }

    fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
        Ok(SEED + 4 * self.samples(shape)?.total_kept())
    }

    fn is_sparse(&self) -> bool {
        true
    }
}

/// The places, ascending, every set of so many equally likely: each element is taken with the
/// probability of what is still to be taken among what is left (Knuth, TAOCP 2, algorithm 3.4.2 S).
fn chosen(seed: u64, samples: Samples) -> Vec<usize> {
    let mut draws = Draws::new(seed, 0);
    let Samples { elements, mut kept, .. } = samples;
    let mut chosen = Vec::with_capacity(kept);
    chosen.extend((0..elements).filter(|at| {
        let take = draws.below(elements - at) < kept;
        kept -= usize::from(take);
        take
    }));
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec(share: &str) -> RandK {
        RandK::new(share.parse().unwrap())
    }

    proptest! {
        #[test]
        fn so_many_are_kept_and_the_others_are_zero(
            shape in prop::collection::vec(0usize..9, 0..4), share in 1e-4f64..1.0, seed in any::<u64>(),
        ) {
            let codec = codec(&share.to_string());
            let count = shape.iter().product::<usize>();
            let values: Vec<f32> = (1..=count).map(|v| v as f32).collect();
            let tensor = HostTensor::from_f32(shape.clone(), &values);
            let samples = codec.samples(&shape).unwrap();
            for (sent, factor) in [
                (codec.encode_with_rest(tensor.clone(), seed), 1.0),
                (codec.encode_seeded(tensor.clone(), seed), samples.elements as f32 / samples.kept.max(1) as f32),
            ] {
                prop_assert_eq!(sent.len(), codec.most_bytes(&shape).unwrap());
                let found = codec.decode(shape.clone(), sent).unwrap().to_f32().unwrap();
                for found in found.chunks(samples.elements.max(1)) {
                    prop_assert_eq!(found.iter().filter(|v| **v != 0.0).count(), samples.kept);
                }
                for (found, value) in found.iter().zip(&values) {
                    prop_assert!(*found == 0.0 || *found == value * factor);
                }
            }
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            shape in prop::collection::vec(0usize..9, 0..4), data in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let codec = codec("0.3");
            let fits = data.len() == codec.most_bytes(&shape).unwrap();
            prop_assert_eq!(codec.decode(shape, data.into()).is_ok(), fits);
        }
    }

    #[test]
    fn the_mean_over_seeds_is_the_tensor() {
        const SEEDS: u64 = 8000;
        let values: Vec<f32> = (0..10).map(|v| v as f32 - 4.0).collect();
        let (codec, tensor) = (codec("0.3"), HostTensor::from_f32(vec![1, 10], &values));
        let mut sum = [0f64; 10];
        for seed in 0..SEEDS {
            let sent = codec.encode_seeded(tensor.clone(), seed);
            let found = codec.decode(vec![1, 10], sent).unwrap().to_f32().unwrap();
            sum.iter_mut().zip(found).for_each(|(sum, v)| *sum += f64::from(v));
        }
        for (sum, &value) in sum.iter().zip(&values) {
            let value = f64::from(value);
            // Five standard deviations: a value is there three times of ten, times ten thirds.
            let bound = 5.0 * (value * value * (7.0 / 3.0) / SEEDS as f64).sqrt();
            assert!((sum / SEEDS as f64 - value).abs() <= bound + 1e-6, "{sum} {value}");
        }
    }

    #[test]
    fn places_depend_on_the_seed() {
        let samples = Samples { count: 2, elements: 1000, kept: 100 };
        assert_eq!(chosen(1, samples), chosen(1, samples));
        assert_eq!(chosen(1, samples).len(), 100);
        assert_ne!(chosen(1, samples), chosen(2, samples));
    }

    #[test]
    fn a_broken_value_that_is_chosen_stays_broken() {
        let tensor = HostTensor::from_f32(vec![1, 2], &[f32::NAN, f32::INFINITY]);
        let codec = codec("1");
        let found = codec.decode(vec![1, 2], codec.encode(tensor)).unwrap().to_f32().unwrap();
        assert!(found[0].is_nan() && found[1] == f32::INFINITY);
    }
}
