//! The code that `build.rs` generates from `proto/inference`, in one place so that the rest of the
//! crate never spells a build path.

/// Messages, server and client of the Open Inference Protocol v2.
#[allow(clippy::all, clippy::pedantic)]
pub mod inference {
    tonic::include_proto!("inference");
}

/// The compiled `.proto` file, for the server reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("inference_descriptor");
