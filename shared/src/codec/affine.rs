//! Integers of 8 or 4 bits, affine per block: about a quarter or an eighth of FP32's bytes.
//!
//! A block of [`BLOCK`] values is its least value and a step, FP32 each, then for each value the number of
//! steps above the least: 0 to 255, or 0 to 15 with two in a byte, the first in the low half. Blocks follow
//! the order of memory whatever the shape is. A value is off by half a step at most, which is the block's
//! range over 510 or over 30. In a block with an infinity or NaN every value decodes to NaN: what is broken
//! stays visible, and does not look like a large number.

use bytes::Bytes;

use super::{
    Codec,
    words::{into_bytes, words},
};
use crate::tensor::{DType, HostTensor, TensorError, byte_length};

/// Values that share a least value and a step: with 8 bytes for both, FP32 has 3.94 times the bytes of
/// `int8`, and 7.76 times those of `int4`. Smaller blocks round more finely and save less.
pub const BLOCK: usize = 512;

/// Least value and step.
const HEADER: usize = 8;

/// 8 bits a value.
pub struct Int8;

/// 4 bits a value.
pub struct Int4;

/// A float whose last bits count whole numbers: adding it rounds to the nearest, ties to even, and leaves
/// the number in the mantissa. Unlike a cast, this is a plain addition in vector code.
const ROUND: f32 = (1u32 << 23) as f32;

/// Least value and step of a block, for `levels` steps.
fn range(values: &[f32], levels: f32) -> (f32, f32) {
    // Eight of each, so that the compiler can keep them in vectors.
    let (mut low, mut high, mut broken) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8], [0f32; 8]);
    let mut eights = values.chunks_exact(8);
    let mut take = |lane: usize, v: f32| {
        low[lane] = if v < low[lane] { v } else { low[lane] };
        high[lane] = if v > high[lane] { v } else { high[lane] };
        // 0 for a finite number, NaN for others.
        broken[lane] += v * 0.0;
    };
    for eight in &mut eights {
        (0..8).for_each(|lane| take(lane, eight[lane]));
    }
    eights.remainder().iter().for_each(|&v| take(0, v));
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    let high = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = broken.iter().sum();
    // Halves first: the range of the largest floats is no float.
    let step = (high / levels - low / levels).max(0.0);
    if sum == 0.0 { (low, step) } else { (f32::NAN, f32::NAN) }
}

/// Steps above `low`, for each value.
fn quantize(values: &[f32], low: f32, step: f32, levels: f32, out: &mut [u8]) {
    let per_value = if step > 0.0 { 1.0 / step } else { 0.0 };
    // Twice a step below the smallest normal number, 1 / step is infinite.
    let per_value = if per_value.is_finite() { per_value } else { 0.0 };
    for (out, &v) in out.iter_mut().zip(values) {
        let steps = (v - low) * per_value;
        let steps = if steps < levels { steps } else { levels };
        *out = (steps + ROUND).to_bits() as u8;
    }
}

fn blocks(count: usize) -> usize {
    count.div_ceil(BLOCK)
}

fn refuse(shape: Vec<usize>, expected: usize, found: usize) -> TensorError {
    TensorError::Length { shape, dtype: "FP32", expected, found }
}

/// How many elements a shape has; an error if memory cannot have them.
fn elements(shape: &[usize]) -> Result<usize, TensorError> {
    Ok(byte_length(DType::F32, shape)? / DType::F32.size())
}

/// Writes a block's least value and step, and gives them and the room for its numbers.
fn begin<'a>(block: &[f32], levels: f32, out: &'a mut [u8]) -> (f32, f32, &'a mut [u8]) {
    let (low, step) = range(block, levels);
    let (header, numbers) = out.split_at_mut(HEADER);
    header[..4].copy_from_slice(&low.to_le_bytes());
    header[4..].copy_from_slice(&step.to_le_bytes());
    (low, step, numbers)
}

impl Codec for Int8 {
    fn name(&self) -> &'static str {
        "int8"
    }

    fn encode(&self, tensor: HostTensor) -> Bytes {
        let data = tensor.into_data();
        let values = words::<f32>(&data);
        let mut out = vec![0u8; values.len() + HEADER * blocks(values.len())];
        for (out, block) in out.chunks_mut(HEADER + BLOCK).zip(values.chunks(BLOCK)) {
            let (low, step, numbers) = begin(block, 255.0, out);
            quantize(block, low, step, 255.0, numbers);
        }
        out.into()
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        let count = elements(&shape)?;
        let expected = count + HEADER * blocks(count);
        if data.len() != expected {
            return Err(refuse(shape, expected, data.len()));
        }
        let mut values = vec![0f32; count];
        for (values, block) in values.chunks_mut(BLOCK).zip(data.chunks(HEADER + BLOCK)) {
            let (low, step, numbers) = open(block);
            for (value, &n) in values.iter_mut().zip(numbers) {
                *value = low + f32::from(n) * step;
            }
        }
        HostTensor::new(DType::F32, shape, into_bytes(values))
    }
}

impl Codec for Int4 {
    fn name(&self) -> &'static str {
        "int4"
    }

    fn encode(&self, tensor: HostTensor) -> Bytes {
        let data = tensor.into_data();
        let values = words::<f32>(&data);
        let mut out = vec![0u8; values.len().div_ceil(2) + HEADER * blocks(values.len())];
        let mut numbers = [0u8; BLOCK];
        for (out, block) in out.chunks_mut(HEADER + BLOCK / 2).zip(values.chunks(BLOCK)) {
            let (low, step, packed) = begin(block, 15.0, out);
            let numbers = &mut numbers[..block.len().next_multiple_of(2)];
            numbers.fill(0);
            quantize(block, low, step, 15.0, numbers);
            for (byte, pair) in packed.iter_mut().zip(numbers.chunks_exact(2)) {
                *byte = pair[0] & 15 | pair[1] << 4;
            }
        }
        out.into()
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        let count = elements(&shape)?;
        let expected = count.div_ceil(2) + HEADER * blocks(count);
        if data.len() != expected {
            return Err(refuse(shape, expected, data.len()));
        }
        let mut values = vec![0f32; count];
        for (values, block) in values.chunks_mut(BLOCK).zip(data.chunks(HEADER + BLOCK / 2)) {
            let (low, step, packed) = open(block);
            for (pair, &byte) in values.chunks_mut(2).zip(packed) {
                pair[0] = low + f32::from(byte & 15) * step;
                if let Some(second) = pair.get_mut(1) {
                    *second = low + f32::from(byte >> 4) * step;
                }
            }
        }
        HostTensor::new(DType::F32, shape, into_bytes(values))
    }
}

/// Least value, step and numbers of a block.
fn open(block: &[u8]) -> (f32, f32, &[u8]) {
    let word =
        |at: usize| f32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    (word(0), word(4), &block[HEADER..])
}

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
                    let bound = (high / levels - low / levels) * 0.5001 + largest * 4e-7;
                    for (value, found) in block.iter().zip(found) {
                        prop_assert!((value - found).abs() <= bound, "{value} {found}, {bound}");
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            shape in prop::collection::vec(0usize..9, 0..4), data in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let count = shape.iter().product::<usize>();
            let fits = data.len() == count + 8 * count.div_ceil(BLOCK);
            prop_assert_eq!(Int8.decode(shape.clone(), data.clone().into()).is_ok(), fits);
            let fits = data.len() == count.div_ceil(2) + 8 * count.div_ceil(BLOCK);
            prop_assert_eq!(Int4.decode(shape, data.into()).is_ok(), fits);
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
