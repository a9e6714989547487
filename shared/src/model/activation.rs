//! What flows between stages: named device tensors of rank 1 to 4.
//!
//! burn's rank is a const generic; a cut can carry tensors of several ranks, so [`Value`] erases it.
//! Floats carry what is learned; integers carry token ids and masks, and have no gradient.

use burn::tensor::{
    AllocationProperty, DType as DeviceDType, Device, Gradients, Int, Tensor, TensorData,
};
use bytes::Bytes;

use super::ModelError;
use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// A tensor of any supported rank and kind.
#[derive(Debug, Clone)]
pub enum Value {
    R1(Tensor<1>),
    R2(Tensor<2>),
    R3(Tensor<3>),
    R4(Tensor<4>),
    /// Integers such as a label or a length of each sample: `[batch]`.
    I1(Tensor<1, Int>),
    /// Integers such as token ids or a padding mask: `[batch, sequence]`.
    I2(Tensor<2, Int>),
}

macro_rules! each_kind {
    ($value:expr, $t:ident => $body:expr) => {
        match $value {
            Value::R1($t) => $body,
            Value::R2($t) => $body,
            Value::R3($t) => $body,
            Value::R4($t) => $body,
            Value::I1($t) => $body,
            Value::I2($t) => $body,
        }
    };
}

impl Value {
    /// Hands a host tensor to the device. FP32 bytes that are aligned are used where they are; others
    /// are copied once.
    pub fn from_host(tensor: &HostTensor, device: &Device) -> Result<Self, ModelError> {
        let shape = tensor.shape().to_vec();
        match tensor.dtype() {
            DType::F32 => {
                let rank = shape.len();
                let data = float_data(tensor.data().clone(), shape);
                Ok(match rank {
                    1 => Value::R1(Tensor::from_data(data, device)),
                    2 => Value::R2(Tensor::from_data(data, device)),
                    3 => Value::R3(Tensor::from_data(data, device)),
                    4 => Value::R4(Tensor::from_data(data, device)),
                    rank => return Err(input_error(&format!("rank {rank}"))),
                })
            }
            DType::I64 => {
                let values = tensor.to_i64().map_err(|e| input_error(&e.to_string()))?;
                // What the device has no integer for, burn would panic on.
                if let Some(large) = values.iter().find(|&&v| i32::try_from(v).is_err()) {
                    return Err(input_error(&large.to_string()));
                }
                let data = TensorData::new(values, shape.clone());
                Ok(match shape.len() {
                    1 => Value::I1(Tensor::from_data(data, device)),
                    2 => Value::I2(Tensor::from_data(data, device)),
                    rank => return Err(input_error(&format!("INT64 of rank {rank}"))),
                })
            }
            other => Err(input_error(other.name())),
        }
    }

    /// Reads the tensor's bytes; burn's buffer is handed on, not copied again.
    pub fn into_host(self) -> HostTensor {
        let shape = self.dims();
        let integers = self.is_int();
        let data = each_kind!(self, t => t.into_data());
        if integers {
            let values: Vec<i64> = data.iter::<i64>().collect();
            return HostTensor::from_i64(shape, &values);
        }
        let bytes = Bytes::from_owner(DeviceBytes(data.into_bytes()));
        HostTensor::new(DType::F32, shape, bytes).expect("burn's f32 data fills its shape")
    }

    pub fn dims(&self) -> Vec<usize> {
        each_kind!(self, t => t.dims().to_vec())
    }

    pub fn is_int(&self) -> bool {
        matches!(self, Value::I1(_) | Value::I2(_))
    }

    /// A sample a row, `[batch, values]`; none for integers.
    pub fn rows(&self) -> Option<Tensor<2>> {
        let dims = self.dims();
        let shape = [dims[0], dims[1..].iter().product()];
        Some(match self.clone() {
            Value::R1(t) => t.reshape(shape),
            Value::R2(t) => t,
            Value::R3(t) => t.reshape(shape),
            Value::R4(t) => t.reshape(shape),
            Value::I1(_) | Value::I2(_) => return None,
        })
    }

    /// A tensor of this one's shape with the values of `rows`, which [`Value::rows`] gave; integers
    /// stay as they are.
    pub fn with_rows(self, rows: Tensor<2>) -> Self {
        match self {
            Value::R1(t) => Value::R1(rows.reshape(t.dims())),
            Value::R2(_) => Value::R2(rows),
            Value::R3(t) => Value::R3(rows.reshape(t.dims())),
            Value::R4(t) => Value::R4(rows.reshape(t.dims())),
            int => int,
        }
    }

    /// The samples at these places of the batch, in that order; at least one.
    pub fn pick(self, places: &[usize], device: &Device) -> Self {
        let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        let places = Tensor::<1, Int>::from_data(&places[..], device);
        match self {
            Value::R1(t) => Value::R1(t.select(0, places)),
            Value::R2(t) => Value::R2(t.select(0, places)),
            Value::R3(t) => Value::R3(t.select(0, places)),
            Value::R4(t) => Value::R4(t.select(0, places)),
            Value::I1(t) => Value::I1(t.select(0, places)),
            Value::I2(t) => Value::I2(t.select(0, places)),
        }
    }

    /// The same tensor as a leaf of the autodiff graph; integers stay as they are.
    pub fn require_grad(self) -> Self {
        match self {
            Value::R1(t) => Value::R1(t.require_grad()),
            Value::R2(t) => Value::R2(t.require_grad()),
            Value::R3(t) => Value::R3(t.require_grad()),
            Value::R4(t) => Value::R4(t.require_grad()),
            int => int,
        }
    }

    /// Gradient of a leaf, if the loss depends on it.
    pub fn grad(&self, grads: &Gradients) -> Option<Value> {
        Some(match self {
            Value::R1(t) => Value::R1(t.grad(grads)?),
            Value::R2(t) => Value::R2(t.grad(grads)?),
            Value::R3(t) => Value::R3(t.grad(grads)?),
            Value::R4(t) => Value::R4(t.grad(grads)?),
            Value::I1(_) | Value::I2(_) => return None,
        })
    }

    /// `sum(self * upstream)`, whose gradient with respect to `self` is exactly `upstream`: how a
    /// backward pass is continued from a gradient that came over the wire.
    pub fn weighted_sum(self, upstream: Value) -> Option<Tensor<1>> {
        match (self, upstream) {
            (Value::R1(a), Value::R1(b)) => Some((a * b).sum()),
            (Value::R2(a), Value::R2(b)) => Some((a * b).sum()),
            (Value::R3(a), Value::R3(b)) => Some((a * b).sum()),
            (Value::R4(a), Value::R4(b)) => Some((a * b).sum()),
            _ => None,
        }
    }
}

/// FP32 data over little-endian bytes: the bytes themselves where they are aligned for `f32`, as those
/// of a mapped file or of a whole message are, else a copy.
pub(super) fn float_data(bytes: Bytes, shape: Vec<usize>) -> TensorData {
    let aligned = bytes.as_ptr().align_offset(align_of::<f32>()) == 0;
    let bytes = match aligned && cfg!(target_endian = "little") {
        true => burn::tensor::Bytes::from_shared(bytes, AllocationProperty::Other),
        false => {
            let quads = bytes.chunks_exact(4);
            let values = quads.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            burn::tensor::Bytes::from_elems(values.collect::<Vec<f32>>())
        }
    };
    TensorData::from_bytes(bytes, shape, DeviceDType::F32)
}

struct DeviceBytes(burn::tensor::Bytes);

impl AsRef<[u8]> for DeviceBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn input_error(found: &str) -> ModelError {
    ModelError::Input {
        stage: "input".into(),
        expected: "FP32 of rank 1 to 4, or INT64 of rank 1 or 2 and of 32 bits".into(),
        found: found.into(),
    }
}

/// Named tensors between two stages, in the order they were made.
#[derive(Debug, Clone, Default)]
pub struct Activation(Vec<(String, Value)>);

/// The name of the only tensor of a chain model.
const MAIN: &str = "x";

impl Activation {
    /// The activation of a chain model: one tensor named `x`.
    pub fn single(value: Value) -> Self {
        Self(vec![(MAIN.into(), value)])
    }

    pub fn from_host(tensors: &NamedTensors, device: &Device) -> Result<Self, ModelError> {
        let values = tensors.iter().map(|(n, t)| Ok((n.clone(), Value::from_host(t, device)?)));
        Ok(Self(values.collect::<Result<_, ModelError>>()?))
    }

    pub fn into_host(self) -> NamedTensors {
        self.0.into_iter().map(|(n, v)| (n, v.into_host())).collect()
    }

    /// Takes the tensor with this name out; `stage` is who asks.
    pub fn take(&mut self, stage: &str, name: &str) -> Result<Value, ModelError> {
        match self.0.iter().position(|(n, _)| n == name) {
            Some(i) => Ok(self.0.remove(i).1),
            None => Err(ModelError::Input {
                stage: stage.into(),
                expected: format!("a tensor named {name:?}"),
                found: format!("{:?}", self.names()),
            }),
        }
    }

    /// Takes the tensor with this name out, if there is one.
    pub fn take_optional(&mut self, name: &str) -> Option<Value> {
        let i = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(i).1)
    }

    /// Adds a tensor behind the others.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.push((name.into(), value));
        self
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(n, _)| n.as_str()).collect()
    }

    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().map(|(_, v)| v)
    }

    /// The same names, each tensor changed by `change`.
    pub fn map(self, mut change: impl FnMut(Value) -> Value) -> Self {
        Self(self.0.into_iter().map(|(n, v)| (n, change(v))).collect())
    }

    /// The tensor of a chain model, refused if the activation is anything else.
    pub fn into_single(mut self, stage: &str) -> Result<Value, ModelError> {
        match self.0.pop() {
            Some((name, value)) if self.0.is_empty() && name == MAIN => Ok(value),
            last => Err(ModelError::Input {
                stage: stage.into(),
                expected: format!("one tensor named {MAIN:?}"),
                found: format!("{} tensors", self.0.len() + usize::from(last.is_some())),
            }),
        }
    }

    pub fn require_grad(self) -> Self {
        Self(self.0.into_iter().map(|(n, v)| (n, v.require_grad())).collect())
    }

    /// Gradients of all tensors; one the loss does not depend on is left out.
    pub fn grads(&self, grads: &Gradients) -> Activation {
        let found = self.0.iter().filter_map(|(n, v)| Some((n.clone(), v.grad(grads)?)));
        Self(found.collect())
    }

    /// Scalar whose gradient at this activation is `upstream`; see [`Value::weighted_sum`]. A tensor
    /// that `upstream` lacks is one that the loss does not depend on, such as a mask.
    pub fn weighted_sum(self, upstream: Activation) -> Result<Tensor<1>, ModelError> {
        let mut total: Option<Tensor<1>> = None;
        for (name, gradient) in upstream.0 {
            let Some((_, value)) = self.0.iter().find(|(n, _)| *n == name) else {
                return Err(ModelError::Gradient(format!("{name:?} did not cross the cut")));
            };
            let (dims, found) = (value.dims(), gradient.dims());
            if found != dims {
                return Err(ModelError::Gradient(format!("{name:?} is {found:?}, not {dims:?}")));
            }
            let term = value.clone().weighted_sum(gradient).ok_or_else(|| {
                ModelError::Gradient(format!("{name:?} has no gradient: it is not FP32"))
            })?;
            total = Some(match total {
                Some(sum) => sum + term,
                None => term,
            });
        }
        total.ok_or_else(|| ModelError::Gradient("it is empty".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_that_the_device_lacks_are_refused() {
        let value =
            |v: i64| Value::from_host(&HostTensor::from_i64(vec![1], &[v]), &Device::flex());
        for fits in [i64::from(i32::MIN), -100, i64::from(i32::MAX)] {
            let back = value(fits).unwrap().into_host();
            assert_eq!(back.to_i64().unwrap(), [fits]);
        }
        for large in [i64::MIN, 1 << 40] {
            let error = value(large).unwrap_err().to_string();
            assert!(error.ends_with(&format!("32 bits, found {large}")), "{error}");
        }
    }
}
