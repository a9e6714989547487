//! How float tensors are encoded for the link.
//!
//! A codec is one file: it turns an FP32 tensor into bytes and back. Both sides name the same
//! codec in the handshake, separately for activations and for cut-layer gradients.

mod affine;
mod f32;
mod float16;
mod words;

use bytes::Bytes;

pub use self::{
    affine::{Int4, Int8},
    f32::F32,
    float16::{BF16, F16},
};
use crate::tensor::{HostTensor, TensorError};

/// Encodes FP32 tensors of any shape.
pub trait Codec: Send + Sync {
    /// The name used in the config and in the handshake.
    fn name(&self) -> &'static str;
    /// Encodes the elements; the shape travels beside them.
    fn encode(&self, tensor: HostTensor) -> Bytes;
    /// Decodes what [`Codec::encode`] made of a tensor of this shape.
    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError>;
}

/// Names of all codecs, as the config accepts them.
pub const NAMES: [&str; 5] = ["f32", "f16", "bf16", "int8", "int4"];

/// The codec with this name.
pub fn by_name(name: &str) -> Option<&'static dyn Codec> {
    match name {
        "f32" => Some(&F32),
        "f16" => Some(&F16),
        "bf16" => Some(&BF16),
        "int8" => Some(&Int8),
        "int4" => Some(&Int4),
        _ => None,
    }
}
