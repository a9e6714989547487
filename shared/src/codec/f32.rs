//! The identity codec: exact, and free, for no byte is touched.

use bytes::Bytes;

use super::Codec;
use crate::tensor::{DType, HostTensor, TensorError, byte_length};

/// FP32 little-endian as it is; split results equal unsplit results bit for bit.
pub struct F32;

impl Codec for F32 {
    fn name(&self) -> &str {
        "f32"
    }

    fn encode(&self, tensor: HostTensor) -> Bytes {
        tensor.into_data()
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        HostTensor::new(DType::F32, shape, data)
    }

    fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
        byte_length(DType::F32, shape)
    }
}
