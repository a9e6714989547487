//! A lossless stage behind any codec: the bytes that the codec made, compressed.
//!
//! `zstd` (RFC 8878, at its quickest level) and `lz4` (its block format). Worth it where bytes repeat, as
//! after a ReLU or in 4-bit numbers; mantissas of floats hardly shrink. What comes out is at most as long
//! as the codec's encoding of the shape can be: a message that would grow to more is refused before memory
//! is taken for it.

use bytes::Bytes;

use super::{Codec, SharedCodec};
use crate::tensor::{HostTensor, TensorError};

/// zstd's levels go up to 22; a level more costs more time than it saves on any link above 10 Mbit/s.
const LEVEL: i32 = 1;

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lossless {
    Zstd,
    Lz4,
}

/// A codec and a stage behind it.
pub struct Compressed {
    name: String,
    inner: SharedCodec,
    stage: Lossless,
}

impl Lossless {
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Zstd, Self::Lz4].into_iter().find(|stage| stage.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    fn compress(self, data: &[u8]) -> Bytes {
        match self {
            // Fails for want of memory only, as a vector would.
            Self::Zstd => zstd::bulk::compress(data, LEVEL).expect("memory for zstd").into(),
            Self::Lz4 => lz4_flex::block::compress(data).into(),
        }
    }

    /// The bytes, `most` of them at most.
    fn decompress(self, data: &[u8], most: usize) -> Result<Bytes, String> {
        let bytes = match self {
            Self::Zstd => zstd::bulk::decompress(data, most).map_err(|e| e.to_string())?,
            Self::Lz4 => {
                let mut bytes = vec![0; most];
                let length = lz4_flex::block::decompress_into(data, &mut bytes);
                bytes.truncate(length.map_err(|e| e.to_string())?);
                bytes
            }
        };
        Ok(bytes.into())
    }

    /// Most bytes that so many can become; none if they are more than any memory has.
    fn most_bytes(self, bytes: usize) -> Option<usize> {
        // Both bounds are computed without a look at overflow.
        if bytes > usize::MAX / 256 {
            return None;
        }
        Some(match self {
            Self::Zstd => zstd::zstd_safe::compress_bound(bytes),
            Self::Lz4 => lz4_flex::block::get_maximum_output_size(bytes),
        })
    }
}

impl Compressed {
    pub fn new(inner: SharedCodec, stage: Lossless) -> Self {
        Self { name: format!("{}+{}", inner.name(), stage.name()), inner, stage }
    }
}

impl Codec for Compressed {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, tensor: HostTensor) -> Bytes {
        self.stage.compress(&self.inner.encode(tensor))
    }

    fn encode_seeded(&self, tensor: HostTensor, seed: u64) -> Bytes {
        self.stage.compress(&self.inner.encode_seeded(tensor, seed))
    }

    fn encode_with_rest(&self, tensor: HostTensor, seed: u64) -> Bytes {
        self.stage.compress(&self.inner.encode_with_rest(tensor, seed))
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        let most = self.inner.most_bytes(&shape)?;
        let whole = self
            .stage
            .decompress(&data, most)
            .map_err(|problem| TensorError::Encoding { codec: self.name.clone(), problem })?;
        self.inner.decode(shape, whole)
    }

    fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
        let most = self.stage.most_bytes(self.inner.most_bytes(shape)?);
        most.ok_or_else(|| TensorError::Overflow { shape: shape.to_vec() })
    }

    fn is_sparse(&self) -> bool {
        self.inner.is_sparse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::by_name;

    const NAMES: [&str; 6] =
        ["f32+zstd", "f32+lz4", "int8+zstd", "int4+lz4", "topk:0.1+zstd", "randk:0.5+lz4"];

    proptest! {
        #[test]
        fn nothing_is_lost(
            rows in 0usize..4, values in prop::collection::vec(-1.0f32..1.0, 0..300),
            zeros in 0usize..1000, seed in any::<u64>(),
        ) {
            let sample: Vec<f32> = values.into_iter().chain(vec![0.0; zeros]).collect();
            let tensor = HostTensor::from_f32(vec![rows, sample.len()], &sample.repeat(rows));
            let shape = tensor.shape().to_vec();
            for name in NAMES {
                let (whole, base) = (by_name(name).unwrap(), name.split('+').next().unwrap());
                let base = by_name(base).unwrap();
                let sent = whole.encode_seeded(tensor.clone(), seed);
                prop_assert!(sent.len() <= whole.most_bytes(&shape).unwrap());
                let expected = base.encode_seeded(tensor.clone(), seed);
                prop_assert_eq!(
                    whole.decode(shape.clone(), sent).unwrap(),
                    base.decode(shape.clone(), expected).unwrap()
                );
            }
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            shape in prop::collection::vec(0usize..9, 0..4), data in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            for name in NAMES {
                let _ = by_name(name).unwrap().decode(shape.clone(), data.clone().into());
            }
        }
    }

    #[test]
    fn a_shape_beyond_all_memory_has_no_size() {
        // Found by the fuzzer.
        for name in NAMES {
            for extent in [usize::MAX / 8, usize::MAX / 4, usize::MAX] {
                assert!(by_name(name).unwrap().most_bytes(&[extent]).is_err(), "{name} {extent}");
            }
        }
    }

    #[test]
    fn a_message_that_would_grow_beyond_its_shape_is_refused() {
        let zeros = HostTensor::from_f32(vec![1, 1 << 20], &vec![0.0; 1 << 20]);
        for name in ["f32+zstd", "f32+lz4"] {
            let codec = by_name(name).unwrap();
            let bomb = codec.encode(zeros.clone());
            assert!(bomb.len() < 1 << 15, "{} bytes", bomb.len());
            let error = codec.decode(vec![1, 16], bomb.clone()).unwrap_err();
            assert!(matches!(error, TensorError::Encoding { .. }), "{error}");
            assert!(codec.decode(vec![usize::MAX, 2], bomb).is_err());
        }
    }
}
