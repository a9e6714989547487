//! Tensors as safetensors files.

use std::{collections::HashMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{CheckpointError, atomic::io_error, manifest::corrupt, write_atomic};
use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// Writes tensors as one safetensors file.
pub fn write_weights(path: &Path, tensors: &NamedTensors) -> Result<(), CheckpointError> {
    write_atomic(path, &serialize(path, tensors)?)
}

/// What a file says of its tensors.
pub type Labels = HashMap<String, String>;

/// Writes tensors as one safetensors file, with labels in its header.
pub fn write_labelled(
    path: &Path,
    tensors: &NamedTensors,
    labels: Labels,
) -> Result<(), CheckpointError> {
    write_atomic(path, &serialize_labelled(path, tensors, Some(labels))?)
}

/// Reads what [`write_labelled`] wrote.
pub fn read_labelled(path: &Path) -> Result<(NamedTensors, Labels), CheckpointError> {
    let bytes = fs::read(path).map_err(|e| io_error(path, e))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| corrupt(path, e))?;
    let labels = header.metadata().clone().unwrap_or_default();
    Ok((deserialize(path, &bytes)?, labels))
}

pub(super) fn serialize(dir: &Path, tensors: &NamedTensors) -> Result<Vec<u8>, CheckpointError> {
    serialize_labelled(dir, tensors, None)
}

fn serialize_labelled(
    dir: &Path,
    tensors: &NamedTensors,
    labels: Option<Labels>,
) -> Result<Vec<u8>, CheckpointError> {
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
    safetensors::serialize(views, labels).map_err(|e| corrupt(dir, e))
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
