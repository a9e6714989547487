//! Integers of 8 or 4 bits, affine per block: about a quarter or an eighth of FP32's bytes.
//!
//! A block of [`BLOCK`] values is its least value (FP32) and a step (bfloat16, rounded up), then for each
//! value the number of steps above the least: 0 to 255, or 0 to 15 with two in a byte, the first in the low
//! half. Blocks follow the order of memory whatever the shape is. A value is off by half a step at most,
//! which is the block's range over 510 or over 30, and 1/128 of that; rounded by chance (QSGD; Alistarh et al., NeurIPS 2017) by less than a step,
//! and by nothing in the mean. In a block with an infinity or NaN every value decodes to NaN: what is broken
//! stays visible, and does not look like a large number.

use bytes::Bytes;

use super::{
    Codec,
    dither::{Dither, LANES},
    words::{into_bytes, words},
};
use crate::tensor::{DType, HostTensor, TensorError, byte_length};

/// Values that share a least value and a step: with 6 bytes for both, FP32 has 3.95 times the bytes of
/// `int8`, and 7.82 times those of `int4`. Smaller blocks round more finely and save less.
pub const BLOCK: usize = 512;

/// Least value and step.
const HEADER: usize = 6;

/// 8 bits a value.
pub struct Int8;

/// 4 bits a value.
pub struct Int4;

/// A float whose last bits count whole numbers: adding it rounds to the nearest, ties to even, and leaves
/// the number in the mantissa, that of a number just below zero too. Unlike a cast, this is a plain addition
/// in vector code.
const ROUND: f32 = (3u32 << 22) as f32;

/// Least value and step of a block, for `levels` steps. The step has no more digits than are sent.
fn range(values: &[f32], levels: f32) -> (f32, f32) {
    // Many of each, so that the compiler can keep them in vectors.
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut broken = [0f32; LANES];
    let mut take = |lane: usize, v: f32| {
        low[lane] = if v < low[lane] { v } else { low[lane] };
        high[lane] = if v > high[lane] { v } else { high[lane] };
        // 0 for a finite number, NaN for others.
        broken[lane] += v * 0.0;
    };
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        (0..LANES).for_each(|lane| take(lane, values[lane]));
    }
    rest.iter().enumerate().for_each(|(lane, &v)| take(lane, v));
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    let high = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = broken.iter().sum();
    // Halves first: the range of the largest floats is no float.
    let step = (high / levels - low / levels).max(0.0);
    let step = f32::from_bits(step.to_bits().saturating_add(0xffff) & 0xffff_0000);
    if sum == 0.0 { (low, step) } else { (f32::NAN, f32::NAN) }
}

/// What turns a value into its number of steps.
#[derive(Clone, Copy)]
struct Scale {
    low: f32,
    per_value: f32,
    levels: f32,
}

impl Scale {
    fn new(low: f32, step: f32, levels: f32) -> Self {
        let per_value = if step > 0.0 { 1.0 / step } else { 0.0 };
        // Twice a step below the smallest normal number, 1 / step is infinite.
        let per_value = if per_value.is_finite() { per_value } else { 0.0 };
        Self { low, per_value, levels }
    }

    /// The whole number nearest to that of steps and `dither`, which is at most a half either way.
    fn number(self, value: f32, dither: f32) -> u8 {
        let steps = (value - self.low) * self.per_value + dither;
        let steps = if steps < self.levels { steps } else { self.levels };
        (steps + ROUND).to_bits() as u8
    }

    /// Steps above `low`, for each value.
    fn numbers(self, values: &[f32], out: &mut [u8]) {
        for (out, &v) in out.iter_mut().zip(values) {
            *out = self.number(v, 0.0);
        }
    }

    /// The same, up or down by chance, so that the mean is the value.
    fn dithered(self, values: &[f32], mut dither: Dither, out: &mut [u8]) {
        let (whole, rest) = values.as_chunks::<LANES>();
        let (out, out_rest) = out.split_at_mut(whole.len() * LANES);
        for (out, values) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(whole) {
            let dither = dither.next();
            for lane in 0..LANES {
                out[lane] = self.number(values[lane], dither[lane]);
            }
        }
        let dither = dither.next();
        for (lane, (out, &v)) in out_rest.iter_mut().zip(rest).enumerate() {
            *out = self.number(v, dither[lane]);
        }
    }
}

fn blocks(count: usize) -> usize {
    count.div_ceil(BLOCK)
}

/// How many elements a shape has; an error if memory cannot have them.
fn elements(shape: &[usize]) -> Result<usize, TensorError> {
    Ok(byte_length(DType::F32, shape)? / DType::F32.size())
}

/// Writes blocks of `levels` steps, whose numbers `pack` puts where they go.
fn encode(
    tensor: HostTensor,
    levels: f32,
    seed: Option<u64>,
    packed_bytes: fn(usize) -> usize,
    pack: fn(&[u8], &mut [u8]),
) -> Bytes {
    let data = tensor.into_data();
    let values = words::<f32>(&data);
    let mut out = vec![0u8; packed_bytes(values.len()) + HEADER * blocks(values.len())];
    let mut numbers = [0u8; BLOCK];
    let chunks = out.chunks_mut(HEADER + packed_bytes(BLOCK)).zip(values.chunks(BLOCK));
    for (place, (out, block)) in chunks.enumerate() {
        let (low, step) = range(block, levels);
        let (header, packed) = out.split_at_mut(HEADER);
        header[..4].copy_from_slice(&low.to_le_bytes());
        header[4..].copy_from_slice(&step.to_le_bytes()[2..]);
        let scale = Scale::new(low, step, levels);
        match seed {
            None => scale.numbers(block, &mut numbers),
            Some(seed) => scale.dithered(block, Dither::new(seed, place as u64), &mut numbers),
        }
        pack(&numbers[..block.len()], packed);
    }
    out.into()
}

/// Reads blocks, whose numbers `unpack` finds: `unpack(packed, low, step, values)`.
fn decode(
    shape: Vec<usize>,
    data: &Bytes,
    packed_bytes: fn(usize) -> usize,
    unpack: fn(&[u8], f32, f32, &mut [f32]),
) -> Result<HostTensor, TensorError> {
    let count = elements(&shape)?;
    let expected = packed_bytes(count) + HEADER * blocks(count);
    if data.len() != expected {
        let found = data.len();
        return Err(TensorError::Length { shape, dtype: "FP32", expected, found });
    }
    let mut values = vec![0f32; count];
    let blocks = data.chunks(HEADER + packed_bytes(BLOCK));
    for (values, block) in values.chunks_mut(BLOCK).zip(blocks) {
        let (low, step, packed) = open(block);
        unpack(packed, low, step, values);
    }
    HostTensor::new(DType::F32, shape, into_bytes(values))
}

/// Least value, step and numbers of a block.
fn open(block: &[u8]) -> (f32, f32, &[u8]) {
    let (header, numbers) = block.split_at(HEADER);
    let low = f32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    (low, f32::from_le_bytes([0, 0, header[4], header[5]]), numbers)
}

fn whole_bytes(count: usize) -> usize {
    count
}

fn half_bytes(count: usize) -> usize {
    count.div_ceil(2)
}

fn unpack_bytes(packed: &[u8], low: f32, step: f32, values: &mut [f32]) {
    for (value, &n) in values.iter_mut().zip(packed) {
        *value = low + f32::from(n) * step;
    }
}

fn pack_bytes(numbers: &[u8], packed: &mut [u8]) {
    packed.copy_from_slice(numbers);
}

fn pack_halves(numbers: &[u8], packed: &mut [u8]) {
    let (pairs, rest) = numbers.as_chunks::<2>();
    for (byte, pair) in packed.iter_mut().zip(pairs) {
        *byte = pair[0] & 15 | pair[1] << 4;
    }
    if let (Some(byte), [last]) = (packed.last_mut(), rest) {
        *byte = last & 15;
    }
}

fn unpack_halves(packed: &[u8], low: f32, step: f32, values: &mut [f32]) {
    let (pairs, rest) = values.as_chunks_mut::<2>();
    for (pair, &byte) in pairs.iter_mut().zip(packed) {
        pair[0] = low + f32::from(byte & 15) * step;
        pair[1] = low + f32::from(byte >> 4) * step;
    }
    if let ([last], Some(&byte)) = (rest, packed.last()) {
        *last = low + f32::from(byte & 15) * step;
    }
}

macro_rules! integer_codec {
    ($codec:ident, $name:literal, $levels:literal, $bytes:ident, $pack:expr, $unpack:ident) => {
        impl Codec for $codec {
            fn name(&self) -> &str {
                $name
            }

            fn encode(&self, tensor: HostTensor) -> Bytes {
                encode(tensor, $levels, None, $bytes, $pack)
            }

            fn encode_seeded(&self, tensor: HostTensor, seed: u64) -> Bytes {
                encode(tensor, $levels, Some(seed), $bytes, $pack)
            }

            fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
                decode(shape, &data, $bytes, $unpack)
            }

            fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
                let count = elements(shape)?;
                Ok($bytes(count) + HEADER * blocks(count))
            }
        }
    };
}

integer_codec!(Int8, "int8", 255.0, whole_bytes, pack_bytes, unpack_bytes);
integer_codec!(Int4, "int4", 15.0, half_bytes, pack_halves, unpack_halves);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(codec: &dyn Codec, values: &[f32]) -> Vec<f32> {
        let shape = vec![values.len()];
        let sent = codec.encode(HostTensor::from_f32(shape.clone(), values));
        codec.decode(shape, sent).unwrap().to_f32().unwrap()
    }

    proptest! {
        #[test]
        fn every_value_stays_within_half_a_step(
            values in prop::collection::vec(-1.0f32..1.0, 0..1200),
            scale in prop_oneof![Just(1.0f32), Just(0.0), Just(1e-30), Just(3e37), 1e-6f32..1e6],
            offset in -1e3f32..1e3,
        ) {
            let values: Vec<f32> = values.into_iter().map(|v| v * scale + offset).collect();
            for (codec, levels) in [(&Int8 as &dyn Codec, 255.0f32), (&Int4, 15.0)] {
                let found = through(codec, &values);
                for (block, found) in values.chunks(BLOCK).zip(found.chunks(BLOCK)) {
                    let low = block.iter().copied().fold(f32::INFINITY, f32::min);
                    let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    // Half a step, and what the arithmetic itself rounds.
                    let largest = low.abs().max(high.abs());
                    let bound = (high / levels - low / levels) * 0.504 + largest * 4e-7;
                    for (value, found) in block.iter().zip(found) {
                        prop_assert!((value - found).abs() <= bound, "{value} {found}, {bound}");
                    }
                }
            }
        }

        #[test]
        fn by_chance_every_value_stays_within_a_step_and_repeats(
            values in prop::collection::vec(-1.0f32..1.0, 0..1200), seed in any::<u64>(),
        ) {
            for (codec, levels) in [(&Int8 as &dyn Codec, 255.0f32), (&Int4, 15.0)] {
                let tensor = HostTensor::from_f32(vec![values.len()], &values);
                let sent = codec.encode_seeded(tensor.clone(), seed);
                prop_assert_eq!(&sent, &codec.encode_seeded(tensor.clone(), seed));
                prop_assert_eq!(sent.len(), codec.most_bytes(tensor.shape()).unwrap());
                let found = codec.decode(vec![values.len()], sent).unwrap().to_f32().unwrap();
                for (block, found) in values.chunks(BLOCK).zip(found.chunks(BLOCK)) {
                    let low = block.iter().copied().fold(f32::INFINITY, f32::min);
                    let high = block.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let bound = (high - low) / levels * 1.008 + 4e-7;
                    for (value, found) in block.iter().zip(found) {
                        prop_assert!((value - found).abs() <= bound, "{value} {found}, {bound}");
                        prop_assert!(*found >= low - 1e-6 && *found <= high + bound);
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            shape in prop::collection::vec(0usize..9, 0..4), data in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let count = shape.iter().product::<usize>();
            let fits = data.len() == count + HEADER * count.div_ceil(BLOCK);
            prop_assert_eq!(Int8.decode(shape.clone(), data.clone().into()).is_ok(), fits);
            let fits = data.len() == count.div_ceil(2) + HEADER * count.div_ceil(BLOCK);
            prop_assert_eq!(Int4.decode(shape, data.into()).is_ok(), fits);
        }
    }

    #[test]
    fn by_chance_the_mean_is_the_value() {
        // One number between two steps, where rounding to the nearest is always off.
        const SEEDS: u64 = 4000;
        for (codec, levels) in [(&Int8 as &dyn Codec, 255.0f64), (&Int4, 15.0)] {
            for share in [0.03, 0.25, 0.5, 0.9] {
                let step = 1.0 / levels;
                let mut values = vec![((3.0 + share) * step) as f32; 40];
                (values[0], values[39]) = (0.0, 1.0);
                let tensor = HostTensor::from_f32(vec![40], &values);
                let mut sum = [0f64; 40];
                for seed in 0..SEEDS {
                    let sent = codec.encode_seeded(tensor.clone(), seed);
                    let found = codec.decode(vec![40], sent).unwrap().to_f32().unwrap();
                    sum.iter_mut().zip(found).for_each(|(sum, v)| *sum += f64::from(v));
                }
                // Five standard deviations of the mean of so many draws, at the most.
                let bound = 5.0 * 1.008 * step * 0.5 / (SEEDS as f64).sqrt();
                for (i, (sum, &value)) in sum.iter().zip(&values).enumerate() {
                    let off = sum / SEEDS as f64 - f64::from(value);
                    assert!(off.abs() <= bound, "{} {i}: {off}, {bound}", codec.name());
                }
            }
        }
    }

    #[test]
    fn a_large_tensor_has_a_quarter_and_an_eighth_of_the_bytes() {
        let tensor = HostTensor::from_f32(vec![64, 512], &[0.5; 64 * 512]);
        let whole = tensor.data().len() as f64;
        assert!(whole / Int8.encode(tensor.clone()).len() as f64 > 3.9);
        assert!(whole / Int4.encode(tensor).len() as f64 > 7.5);
    }

    #[test]
    fn a_broken_value_is_not_hidden() {
        let mut values = vec![1.0f32; 2 * BLOCK];
        values[BLOCK - 1] = 3.0;
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            values[7] = broken;
            for codec in [&Int8 as &dyn Codec, &Int4] {
                let found = through(codec, &values);
                assert!(found[..BLOCK].iter().all(|v| v.is_nan()), "{}", codec.name());
                assert!(found[BLOCK..].iter().all(|&v| v == 1.0), "{}", codec.name());
            }
        }
    }

    #[test]
    fn a_shape_beyond_memory_is_refused() {
        let shape = vec![usize::MAX, 2];
        assert!(Int8.decode(shape.clone(), Bytes::new()).is_err());
        assert!(Int4.decode(shape, Bytes::new()).is_err());
    }
}
