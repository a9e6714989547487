//! Operations that burn's CPU backend does far from what the processor can do, done otherwise.
//!
//! They come to burn as a backend extension, so that a tensor of any device takes them, with or without gradients; a
//! device that is not the CPU would add its own. `benches/compute` says what they bring.

mod batch_norm;
mod columns;
mod convolution;
mod convolve;
mod depthwise;
mod finish;
mod gelu;
mod max_pool;
mod multiply;
mod normalize;
mod pooling;

use burn::{
    backend::flex::FlexTensor,
    tensor::{Bytes, DType, Shape, TensorData},
};

pub use self::{
    convolve::{Steps, convolve, convolve_scaled},
    finish::{Rectify, Then},
    gelu::{Form, gelu},
    max_pool::max_pool,
    normalize::{Normalized, normalize},
};

/// Of a tensor without gaps.
fn floats(tensor: &FlexTensor) -> &[f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("made contiguous before");
    &tensor.storage::<f32>()[start..end]
}

fn tensor(values: Vec<f32>, shape: Shape) -> FlexTensor {
    let bytes = Bytes::from_elems(values);
    FlexTensor::from_data(TensorData::from_bytes(bytes, shape, DType::F32))
}
