//! Floats of 16 bits: half the bytes of FP32, one pass over the tensor.
//!
//! `f16` (IEEE 754 binary16) has 11 significant bits and reaches from 6.0e-8 to 65504; what is larger becomes
//! infinite. `bf16` has 8 significant bits and the range of FP32. Both round to the nearest, ties to even.
//! Infinities stay, NaN stays NaN. Weights and optimiser state are FP32 on both sides: this is mixed
//! precision on the link only.

use bytes::Bytes;
use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{
    Codec,
    words::{into_bytes, words},
};
use crate::tensor::{DType, HostTensor, TensorError, byte_length};

/// IEEE 754 binary16.
pub struct F16;

/// The upper half of FP32.
pub struct BF16;

/// `half` rounds one value at a time; this is vector code.
fn to_bf16(values: &[f32], halves: &mut [bf16]) {
    for (half, value) in halves.iter_mut().zip(values) {
        let bits = value.to_bits();
        // Half of what is cut off is added, less a bit where the last one that stays is even.
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        // NaN could be rounded to infinity, and is made quiet instead.
        let bits = if value.is_nan() { bits | 0x0040_0000 } else { rounded };
        *half = bf16::from_bits((bits >> 16) as u16);
    }
}

fn to_f16(values: &[f32], halves: &mut [f16]) {
    halves.convert_from_f32_slice(values);
}

macro_rules! half_codec {
    ($codec:ident, $float:ident, $name:literal, $dtype:expr, $encode:ident) => {
        impl Codec for $codec {
            fn name(&self) -> &str {
                $name
            }

            fn encode(&self, tensor: HostTensor) -> Bytes {
                let data = tensor.into_data();
                let values = words::<f32>(&data);
                let mut halves = vec![$float::ZERO; values.len()];
                $encode(&values, &mut halves);
                into_bytes(halves)
            }

            fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
                // Checks the length.
                let encoded = HostTensor::new($dtype, shape, data)?;
                let shape = encoded.shape().to_vec();
                let data = encoded.into_data();
                let halves = words::<$float>(&data);
                let mut values = vec![0f32; halves.len()];
                halves.convert_to_f32_slice(&mut values);
                HostTensor::new(DType::F32, shape, into_bytes(values))
            }

            fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
                byte_length($dtype, shape)
            }
        }
    };
}

half_codec!(F16, f16, "f16", DType::F16, to_f16);
half_codec!(BF16, bf16, "bf16", DType::BF16, to_bf16);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(codec: &dyn Codec, values: &[f32]) -> Vec<f32> {
        let shape = vec![values.len()];
        let sent = codec.encode(HostTensor::from_f32(shape.clone(), values));
        assert_eq!(sent.len(), 2 * values.len());
        codec.decode(shape, sent).unwrap().to_f32().unwrap()
    }

    proptest! {
        #[test]
        fn every_value_stays_within_half_a_step(
            values in prop::collection::vec(prop_oneof![-7e4f32..7e4, -1.0f32..1.0, -1e-4f32..1e-4], 0..70),
        ) {
            for (value, found) in values.iter().zip(through(&F16, &values)) {
                let value = value.clamp(-65504.0, 65504.0);
                let bound = (value.abs() * 2f32.powi(-11)).max(2f32.powi(-25));
                let overflow = found.is_infinite() && value.abs() == 65504.0;
                prop_assert!(overflow || (value - found).abs() <= bound, "{value} {found}");
            }
            for (value, found) in values.iter().zip(through(&BF16, &values)) {
                prop_assert!((value - found).abs() <= value.abs() * 2f32.powi(-8), "{value} {found}");
            }
        }

        #[test]
        fn every_float_is_rounded_as_half_rounds_it(bits in prop::collection::vec(any::<u32>(), 0..70)) {
            let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
            let sent = BF16.encode(HostTensor::from_f32(vec![values.len()], &values));
            let expected: Vec<u8> =
                values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
            prop_assert_eq!(&sent[..], &expected[..]);
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            shape in prop::collection::vec(0usize..4, 0..4), data in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let fits = data.len() == 2 * shape.iter().product::<usize>();
            // From an odd address: bytes of a message stand anywhere.
            let odd = Bytes::from([&[0][..], &data].concat()).slice(1..);
            prop_assert_eq!(F16.decode(shape.clone(), odd.clone()).is_ok(), fits);
            prop_assert_eq!(BF16.decode(shape, odd).is_ok(), fits);
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for codec in [&F16 as &dyn Codec, &BF16] {
            let found = through(codec, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]);
            assert!(found[0].is_nan(), "{}", codec.name());
            assert_eq!(found[1..3], [f32::INFINITY, f32::NEG_INFINITY]);
            assert!(found[3] == 0.0 && found[3].is_sign_negative());
        }
        assert_eq!(through(&F16, &[1e6]), [f32::INFINITY]);
    }
}
