//! How float tensors are encoded for the link.
//!
//! A codec is one file: it turns an FP32 tensor into bytes and back. [`name`] has their names, behind which
//! a lossless stage may stand: `int8`, `topk:0.1`, `f32+zstd`. The edge names the codec in the agreement,
//! one for activations and one for cut-layer gradients; the cloud takes what its [`Codecs`] allow. Everything
//! else crosses as it is: outputs, labels, weights. [`Learned`] is a codec that belongs to a cut of a model, and
//! is made from the node's folder of runs where a deployment names it.
//!
//! [`Codec::encode`] stands by itself. A gradient is one of many that are added up, and goes through a
//! [`Sender`], which rounds by chance and keeps what a sparse codec left out.

mod affine;
mod allowed;
mod dither;
mod f32;
mod float16;
mod learned;
mod lossless;
mod name;
mod randk;
mod sender;
mod sparse;
mod topk;
mod words;

use std::sync::Arc;

use bytes::Bytes;

pub use self::{
    affine::BLOCK as AFFINE_BLOCK,
    affine::{Int4, Int8},
    allowed::Codecs,
    f32::F32,
    float16::{BF16, F16},
    learned::{LEARNED, Learned, LearnedName, Place},
    lossless::{Compressed, Lossless},
    name::{CodecError, CodecName, FAMILIES, by_name},
    randk::RandK,
    sender::{LeftOut, Sender, seed},
    sparse::{Share, of_what_was_sent},
    topk::TopK,
};
use crate::tensor::{HostTensor, TensorError};

/// A codec that requests and steps share.
pub type SharedCodec = Arc<dyn Codec>;

/// Encodes FP32 tensors of any shape; the first dimension is the batch.
pub trait Codec: Send + Sync {
    /// The name used in the config and in the handshake, with parameters and stages.
    fn name(&self) -> &str;

    /// Encodes the elements; the shape travels beside them.
    fn encode(&self, tensor: HostTensor) -> Bytes;

    /// The same for one of many tensors that are added up: what rounding or selection gets wrong depends on
    /// the seed, and cancels out over many seeds. The same seed gives the same bytes.
    fn encode_seeded(&self, tensor: HostTensor, _seed: u64) -> Bytes {
        self.encode(tensor)
    }

    /// The same where what [`Codec::decode`] lacks is added to the tensor that is sent next.
    fn encode_with_rest(&self, tensor: HostTensor, seed: u64) -> Bytes {
        self.encode_seeded(tensor, seed)
    }

    /// Decodes what [`Codec::encode`] made of a tensor of this shape; any other bytes are an error or a
    /// tensor. The caller has checked that memory has room for the shape.
    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError>;

    /// Most bytes that [`Codec::encode`] makes of a tensor of this shape.
    fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError>;

    /// Whether it leaves elements out, so that what it left out should be added to what is sent next.
    fn is_sparse(&self) -> bool {
        false
    }
}
