//! Tensors as safetensors files.

use std::path::Path;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{CheckpointError, manifest::corrupt, write_atomic};
use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// Writes tensors as one safetensors file.
pub fn write_weights(path: &Path, tensors: &NamedTensors) -> Result<(), CheckpointError> {
    write_atomic(path, &serialize(path, tensors)?)
}

pub(super) fn serialize(dir: &Path, tensors: &NamedTensors) -> Result<Vec<u8>, CheckpointError> {
    let view = |(name, tensor): &(String, HostTensor)| {
        if tensor.dtype() != DType::F32 {
            return Err(corrupt(dir, format!("{name} is not FP32")));
        }
        // Borrowed from `tensors`, not from the closure's argument.
        Ok((name.clone(), tensor.shape().to_vec()))
    };
    let heads = tensors.iter().map(view).collect::<Result<Vec<_>, _>>()?;
    let views = heads.into_iter().zip(tensors).map(|((name, shape), (_, tensor))| {
        let view = TensorView::new(Dtype::F32, shape, tensor.data());
        Ok((name, view.map_err(|e| corrupt(dir, e))?))
    });
    let views = views.collect::<Result<Vec<_>, CheckpointError>>()?;
    safetensors::serialize(views, None).map_err(|e| corrupt(dir, e))
}

pub(super) fn deserialize(path: &Path, bytes: &[u8]) -> Result<NamedTensors, CheckpointError> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| corrupt(path, e))?;
    let tensor = |(name, view): (String, TensorView<'_>)| {
        if view.dtype() != Dtype::F32 {
            return Err(corrupt(path, format!("{name} is {:?}, not F32", view.dtype())));
        }
        let data = bytes::Bytes::copy_from_slice(view.data());
        let tensor = HostTensor::new(DType::F32, view.shape().to_vec(), data);
        Ok((name, tensor.map_err(|e| corrupt(path, e))?))
    };
    file.tensors().into_iter().map(tensor).collect()
}
