//! The split protocol: generated messages, and their conversion from and to our own types.
//!
//! Everything a peer sends is checked here once, so that the rest of the code holds only valid
//! tensors.

mod batch;
mod chunk;
mod frames;
mod group;
mod parts;
mod sized;

use bytes::Bytes;

pub use self::{
    batch::{apart, join},
    chunk::{Assembler, CHUNK_BYTES, Carrier, split},
    frames::{Frame, Frames, Sequence},
    parts::{Part, receive, send},
    sized::{SizedCodec, SizedEncoder},
};
use crate::{
    codec::{Codec, F32},
    tensor::{DType, HostTensor, TensorError},
};

/// Generated from `proto/cleave/v1`.
#[allow(clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("cleave.v1");
}

/// Descriptors of the split protocol, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/cleave_descriptor.bin"));

/// Version of the split protocol; raised whenever an old peer would misunderstand a new one.
pub const PROTOCOL_VERSION: u32 = 3;

/// The tensors that cross a cut, by name, in the order the model made them.
pub type NamedTensors = Vec<(String, HostTensor)>;

/// Why a peer's tensor was refused.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("tensor {name:?}: {source}")]
    Tensor { name: String, source: TensorError },
    #[error(
        "tensor {name:?}: dtype {dtype} is not one of this protocol's (1 = F32, 2 = I64, 3 = U8)"
    )]
    DType { name: String, dtype: i32 },
    #[error("message has no {0}")]
    Missing(&'static str),
    #[error("tensor {name:?}: {problem}")]
    Chunk { name: String, problem: String },
    #[error("the message's tensors have {bytes} bytes, at most {limit} are accepted")]
    TooLarge { bytes: u64, limit: u64 },
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLarge { .. } => tonic::Status::resource_exhausted(error.to_string()),
            _ => tonic::Status::invalid_argument(error.to_string()),
        }
    }
}

/// Encodes tensors for the wire.
pub fn encode(tensors: NamedTensors, codec: &dyn Codec) -> Vec<v1::Tensor> {
    encode_with(tensors, |_, tensor| codec.encode(tensor))
}

/// The same with `encode` for the floats of each tensor, by name.
pub fn encode_with(
    tensors: NamedTensors,
    mut encode: impl FnMut(&str, HostTensor) -> Bytes,
) -> Vec<v1::Tensor> {
    tensors.into_iter().map(|(name, tensor)| encode_one(name, tensor, &mut encode)).collect()
}

fn encode_one(
    name: String,
    tensor: HostTensor,
    encode: impl FnOnce(&str, HostTensor) -> Bytes,
) -> v1::Tensor {
    let dtype = match tensor.dtype() {
        DType::I64 => v1::DType::I64,
        DType::U8 => v1::DType::U8,
        _ => v1::DType::F32,
    };
    let shape = tensor.shape().iter().map(|&d| d as u64).collect();
    // Codecs are for floats; integers (labels, ids) always cross as they are.
    let data = match dtype {
        v1::DType::F32 => encode(&name, tensor),
        _ => tensor.into_data(),
    };
    let data_bytes = data.len() as u64;
    v1::Tensor { name, dtype: dtype.into(), shape, data, data_bytes }
}

/// Decodes and checks tensors from the wire.
pub fn decode(tensors: Vec<v1::Tensor>, codec: &dyn Codec) -> Result<NamedTensors, WireError> {
    tensors.into_iter().map(|t| decode_one(t, codec)).collect()
}

fn decode_one(t: v1::Tensor, codec: &dyn Codec) -> Result<(String, HostTensor), WireError> {
    let name = t.name;
    if t.data_bytes != t.data.len() as u64 {
        let problem = format!("{} of its {} bytes arrived", t.data.len(), t.data_bytes);
        return Err(WireError::Chunk { name, problem });
    }
    let shape: Vec<usize> =
        t.shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
    let tensor = match v1::DType::try_from(t.dtype) {
        Ok(v1::DType::F32) => codec.decode(shape, t.data),
        Ok(v1::DType::I64) => HostTensor::new(DType::I64, shape, t.data),
        Ok(v1::DType::U8) => HostTensor::new(DType::U8, shape, t.data),
        _ => return Err(WireError::DType { name, dtype: t.dtype }),
    };
    match tensor {
        Ok(tensor) => Ok((name, tensor)),
        Err(source) => Err(WireError::Tensor { name, source }),
    }
}

/// The labels of a training message; they cross as they are.
pub fn labels(tensor: Option<v1::Tensor>) -> Result<HostTensor, WireError> {
    Ok(decode_one(tensor.ok_or(WireError::Missing("labels"))?, &F32)?.1)
}

/// The labels as a message field.
pub fn encode_labels(labels: HostTensor) -> v1::Tensor {
    encode_one("labels".into(), labels, |_, labels| F32.encode(labels))
}

/// Every field in which two agreements differ, one line a field; empty when they agree.
///
/// The split point, the codecs and the weights are the edge's to choose; the cloud checks those on its own.
pub fn differences(edge: &v1::Agreement, cloud: &v1::Agreement) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, edge: &str, cloud: &str| {
        if edge != cloud {
            lines.push(format!("{what}: edge has {edge}, cloud has {cloud}"));
        }
    };
    compare(
        "protocol version",
        &edge.protocol_version.to_string(),
        &cloud.protocol_version.to_string(),
    );
    if edge.spec_hash != cloud.spec_hash {
        compare("model spec", &edge.spec, &cloud.spec);
    }
    compare("quantize.weights", &edge.weight_format, &cloud.weight_format);
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tensors_round_trip(shape in prop::collection::vec(0usize..5, 0..4)) {
            let n = shape.iter().product::<usize>();
            let values: Vec<f32> = (0..n).map(|i| i as f32 * 0.5 - 1.0).collect();
            let tensor = HostTensor::from_f32(shape, &values);
            let sent = encode(vec![("x".into(), tensor.clone())], &F32);
            prop_assert_eq!(decode(sent, &F32).unwrap(), vec![("x".to_string(), tensor)]);
        }

        #[test]
        fn a_foreign_tensor_never_panics(
            dtype in -1i32..4, shape in prop::collection::vec(any::<u64>(), 0..10),
            data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let data_bytes = data.len() as u64;
            let t = v1::Tensor { name: "x".into(), dtype, shape, data: data.into(), data_bytes };
            let _ = decode(vec![t], &F32);
        }
    }

    #[test]
    fn a_refusal_names_what_differs() {
        let edge = v1::Agreement {
            protocol_version: 1,
            activation_codec: "f32".into(),
            ..Default::default()
        };
        let cloud = v1::Agreement { protocol_version: 2, ..edge.clone() };
        assert_eq!(differences(&edge, &cloud), ["protocol version: edge has 1, cloud has 2"]);
        assert!(differences(&edge, &edge.clone()).is_empty());
    }
}
