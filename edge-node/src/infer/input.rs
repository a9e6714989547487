//! What the served model takes, as its metadata says.

use std::fmt;

use cleave_shared::tensor::{DType, HostTensor};

use crate::{
    proto::inference::{ModelMetadataResponse, model_metadata_response::TensorMetadata},
    serve::TEXT_DTYPE,
};

/// The inputs of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Takes {
    pub inputs: Vec<Input>,
    /// The input that takes texts in place of all others, if there is one.
    pub text: Option<String>,
}

/// One input: FP32 or INT64, `[batch, ...]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub name: String,
    pub dtype: DType,
    /// The extents of a sample, without the batch; `None` for one that varies.
    pub sample: Vec<Option<usize>>,
}

impl Takes {
    pub fn of(metadata: &ModelMetadataResponse) -> Result<Self, String> {
        let is_text = |input: &&TensorMetadata| input.datatype == TEXT_DTYPE;
        let text = metadata.inputs.iter().find(is_text).map(|input| input.name.clone());
        let tensors = metadata.inputs.iter().filter(|input| !is_text(input));
        let inputs = tensors.map(Input::of).collect::<Result<Vec<_>, String>>()?;
        Ok(Self { inputs, text })
    }

    /// The input that a file goes to when none is named. Others may be optional, which metadata do not
    /// say; the edge names one that it misses.
    pub fn first(&self) -> Result<&Input, String> {
        self.inputs.first().ok_or_else(|| "the model takes text alone; send --text".into())
    }

    pub fn named(&self, name: &str) -> Result<&Input, String> {
        self.inputs
            .iter()
            .find(|input| input.name == name)
            .ok_or_else(|| format!("the model has no input {name:?}; it takes {}", self.listed()))
    }

    /// The name of the input that takes texts.
    pub fn text(&self) -> Result<&str, String> {
        self.text
            .as_deref()
            .ok_or_else(|| format!("the model takes no text; it takes {}", self.listed()))
    }

    fn listed(&self) -> String {
        self.inputs.iter().map(Input::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input {:?}, {} [batch", self.name, self.dtype.name())?;
        for extent in &self.sample {
            match extent {
                Some(n) => write!(f, ", {n}")?,
                None => write!(f, ", any")?,
            }
        }
        write!(f, "]")
    }
}

impl Input {
    fn of(metadata: &TensorMetadata) -> Result<Self, String> {
        let TensorMetadata { name, datatype, shape } = metadata;
        let dtype = DType::from_name(datatype).filter(|d| matches!(d, DType::F32 | DType::I64));
        let dtype = dtype.ok_or_else(|| {
            format!("input {name:?} of the model takes {datatype}; FP32, INT64 and texts are sent")
        })?;
        let sample = shape.iter().skip(1).map(|&d| usize::try_from(d).ok()).collect();
        Ok(Self { name: name.clone(), dtype, sample })
    }

    /// The shape of a sample that has so many values. One extent that varies is what the others leave.
    pub fn sample_of(&self, count: usize) -> Result<Vec<usize>, String> {
        let fixed = self.sample.iter().flatten().fold(1_usize, |all, &d| all.saturating_mul(d));
        let (fits, needed) = match self.sample.iter().filter(|d| d.is_none()).count() {
            0 => (count == fixed, fixed.to_string()),
            1 => (count > 0 && count.is_multiple_of(fixed), format!("a multiple of {fixed}")),
            _ => (false, "an NPY file, since several extents vary,".into()),
        };
        if !fits {
            return Err(format!("has {count} numbers; {self} needs {needed} for a sample"));
        }
        Ok(self.sample.iter().map(|d| d.unwrap_or(count / fixed.max(1))).collect())
    }

    /// A tensor of this input's type as `[batch, ...]`: one that has no batch is one sample.
    pub fn batch(&self, tensor: HostTensor) -> Result<HostTensor, String> {
        let fits = |shape: &[usize]| {
            let mut extents = shape.iter().zip(&self.sample);
            shape.len() == self.sample.len()
                && extents.all(|(found, wanted)| wanted.is_none_or(|w| w == *found))
        };
        if tensor.shape().split_first().is_some_and(|(_, sample)| fits(sample)) {
            return Ok(tensor);
        }
        let shape = tensor.shape().to_vec();
        if !fits(&shape) {
            return Err(format!("has shape {shape:?}; send {self}, or a sample without the batch"));
        }
        let shape = [1].into_iter().chain(shape).collect();
        HostTensor::new(tensor.dtype(), shape, tensor.into_data()).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(shape: &[i64]) -> Input {
        let metadata =
            TensorMetadata { name: "x".into(), datatype: "FP32".into(), shape: shape.to_vec() };
        Input::of(&metadata).unwrap()
    }

    #[test]
    fn metadata_say_what_is_taken() {
        let tensor = |name: &str, datatype: &str| TensorMetadata {
            name: name.into(),
            datatype: datatype.into(),
            shape: vec![-1, -1],
        };
        let inputs = vec![tensor("input_ids", "INT64"), tensor("text", "BYTES")];
        let metadata = ModelMetadataResponse { inputs, ..Default::default() };
        let takes = Takes::of(&metadata).unwrap();
        assert_eq!(takes.text(), Ok("text"));
        assert_eq!(takes.first().unwrap().to_string(), "input \"input_ids\", INT64 [batch, any]");
        assert!(takes.named("mask").unwrap_err().contains("no input \"mask\""));

        let inputs = vec![tensor("x", "FP16")];
        let metadata = ModelMetadataResponse { inputs, ..Default::default() };
        assert!(Takes::of(&metadata).unwrap_err().contains("takes FP16"));
    }

    #[test]
    fn an_extent_that_varies_is_what_the_others_leave() {
        assert_eq!(input(&[-1, 1, 8, 8]).sample_of(64), Ok(vec![1, 8, 8]));
        assert_eq!(input(&[-1, -1, 3]).sample_of(12), Ok(vec![4, 3]));
        let error = input(&[-1, 1, 8, 8]).sample_of(63).unwrap_err();
        assert_eq!(
            error,
            "has 63 numbers; input \"x\", FP32 [batch, 1, 8, 8] needs 64 for a sample"
        );
        assert!(input(&[-1, -1, 3]).sample_of(10).unwrap_err().contains("a multiple of 3"));
        assert!(input(&[-1, -1, -1]).sample_of(10).unwrap_err().contains("NPY"));
    }

    #[test]
    fn a_sample_without_a_batch_is_a_batch_of_one() {
        let tensor = |shape: &[usize]| {
            HostTensor::from_f32(shape.to_vec(), &vec![0.0; shape.iter().product()])
        };
        let input = input(&[-1, 2, -1]);
        assert_eq!(input.batch(tensor(&[2, 5])).unwrap().shape(), [1, 2, 5]);
        assert_eq!(input.batch(tensor(&[4, 2, 5])).unwrap().shape(), [4, 2, 5]);
        let error = input.batch(tensor(&[4, 3, 5])).unwrap_err();
        assert!(error.starts_with("has shape [4, 3, 5]; send input"), "{error}");
    }
}
