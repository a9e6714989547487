//! What flows between stages: named device tensors of rank 1 to 4.
//!
//! burn's rank is a const generic; a cut can carry tensors of several ranks, so [`Value`] erases it.

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use bytes::Bytes;

use super::ModelError;
use crate::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};

/// A float tensor of any supported rank.
#[derive(Debug, Clone)]
pub enum Value {
    R1(Tensor<1>),
    R2(Tensor<2>),
    R3(Tensor<3>),
    R4(Tensor<4>),
}

macro_rules! each_rank {
    ($value:expr, $t:ident => $body:expr) => {
        match $value {
            Value::R1($t) => $body,
            Value::R2($t) => $body,
            Value::R3($t) => $body,
            Value::R4($t) => $body,
        }
    };
}

impl Value {
    /// Copies a host tensor to the device: the one copy on the way in.
    pub fn from_host(tensor: &HostTensor, device: &Device) -> Result<Self, ModelError> {
        let values = tensor.to_f32().map_err(|e| input_error(&e.to_string()))?;
        let data = TensorData::new(values, tensor.shape().to_vec());
        Ok(match tensor.shape().len() {
            1 => Value::R1(Tensor::from_data(data, device)),
            2 => Value::R2(Tensor::from_data(data, device)),
            3 => Value::R3(Tensor::from_data(data, device)),
            4 => Value::R4(Tensor::from_data(data, device)),
            rank => return Err(input_error(&format!("rank {rank}"))),
        })
    }

    /// Reads the tensor's bytes; burn's buffer is handed on, not copied again.
    pub fn into_host(self) -> HostTensor {
        let shape = self.dims();
        let data = each_rank!(self, t => t.into_data());
        let bytes = Bytes::from_owner(DeviceBytes(data.into_bytes()));
        HostTensor::new(DType::F32, shape, bytes).expect("burn's f32 data fills its shape")
    }

    pub fn dims(&self) -> Vec<usize> {
        each_rank!(self, t => t.dims().to_vec())
    }

    /// The same tensor as a leaf of the autodiff graph.
    pub fn require_grad(self) -> Self {
        match self {
            Value::R1(t) => Value::R1(t.require_grad()),
            Value::R2(t) => Value::R2(t.require_grad()),
            Value::R3(t) => Value::R3(t.require_grad()),
            Value::R4(t) => Value::R4(t.require_grad()),
        }
    }

    /// Gradient of a leaf, if the loss depends on it.
    pub fn grad(&self, grads: &Gradients) -> Option<Value> {
        Some(match self {
            Value::R1(t) => Value::R1(t.grad(grads)?),
            Value::R2(t) => Value::R2(t.grad(grads)?),
            Value::R3(t) => Value::R3(t.grad(grads)?),
            Value::R4(t) => Value::R4(t.grad(grads)?),
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

struct DeviceBytes(burn::tensor::Bytes);

impl AsRef<[u8]> for DeviceBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn input_error(found: &str) -> ModelError {
    ModelError::Input {
        stage: "input".into(),
        expected: "FP32 of rank 1 to 4".into(),
        found: found.into(),
    }
}

/// Named tensors between two stages, in the order they were made.
#[derive(Debug, Clone)]
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

    /// Scalar whose gradient at this activation is `upstream`; see [`Value::weighted_sum`].
    pub fn weighted_sum(self, upstream: Activation) -> Result<Tensor<1>, ModelError> {
        let mut total: Option<Tensor<1>> = None;
        for (name, value) in self.0 {
            let dims = value.dims();
            let Some((_, gradient)) = upstream.0.iter().find(|(n, _)| *n == name) else {
                return Err(ModelError::Gradient(format!("no tensor named {name:?}")));
            };
            if gradient.dims() != dims {
                let found = gradient.dims();
                return Err(ModelError::Gradient(format!("{name:?} is {found:?}, not {dims:?}")));
            }
            let term = value.weighted_sum(gradient.clone()).expect("equal shapes, equal ranks");
            total = Some(match total {
                Some(sum) => sum + term,
                None => term,
            });
        }
        total.ok_or_else(|| ModelError::Gradient("the activation is empty".into()))
    }
}
