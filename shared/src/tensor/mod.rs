//! A tensor as it crosses a process boundary: dtype, shape and raw little-endian bytes.
//!
//! Nothing here knows burn or protobuf. The bytes are a [`Bytes`], so that slicing a tensor into
//! chunks, queueing it and handing it to the transport never copies it.

pub mod batch;

use bytes::Bytes;

/// Element type of a [`HostTensor`]. Names and sizes follow the Open Inference Protocol v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Every dtype with its Open Inference Protocol name.
    pub const ALL: [(DType, &'static str); 13] = [
        (DType::Bool, "BOOL"),
        (DType::U8, "UINT8"),
        (DType::U16, "UINT16"),
        (DType::U32, "UINT32"),
        (DType::U64, "UINT64"),
        (DType::I8, "INT8"),
        (DType::I16, "INT16"),
        (DType::I32, "INT32"),
        (DType::I64, "INT64"),
        (DType::F16, "FP16"),
        (DType::BF16, "BF16"),
        (DType::F32, "FP32"),
        (DType::F64, "FP64"),
    ];

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::I16 | DType::F16 | DType::BF16 => 2,
            DType::U32 | DType::I32 | DType::F32 => 4,
            DType::U64 | DType::I64 | DType::F64 => 8,
        }
    }

    /// The Open Inference Protocol name, `FP32` for example.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(d, _)| *d == self).map_or("?", |(_, n)| n)
    }

    /// The dtype with this Open Inference Protocol name.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(d, _)| *d)
    }
}

/// Why bytes are not the tensor they claim to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("shape {shape:?} has more elements than memory can address")]
    Overflow { shape: Vec<usize> },
    #[error("shape {shape:?} of {dtype} needs {expected} bytes, {found} were given")]
    Length { shape: Vec<usize>, dtype: &'static str, expected: usize, found: usize },
    #[error("rank {rank} is not supported (at most {MAX_RANK})")]
    Rank { rank: usize },
    #[error("{codec}: {problem}")]
    Encoding { codec: String, problem: String },
    #[error("expected dtype {expected}, found {found}")]
    DType { expected: &'static str, found: &'static str },
}

/// Highest rank accepted from the wire: a peer cannot make a reader loop over a huge shape.
pub const MAX_RANK: usize = 8;

/// A dense, row-major tensor in host memory; `data.len() == shape.product() * dtype.size()` always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl HostTensor {
    /// Checks that `data` is as long as `shape` and `dtype` say.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let expected = byte_length(dtype, &shape)?;
        if expected != data.len() {
            let found = data.len();
            return Err(TensorError::Length { shape, dtype: dtype.name(), expected, found });
        }
        Ok(Self { dtype, shape, data })
    }

    /// A float tensor from values; one copy.
    ///
    /// # Panics
    /// If `values.len()` is not the product of `shape`: a bug of the caller, never of a peer.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::F32, shape, data.into()).expect("values fill the shape")
    }

    /// An integer tensor from values; one copy. Panics as [`HostTensor::from_f32`] does.
    pub fn from_i64(shape: Vec<usize>, values: &[i64]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(DType::I64, shape, data.into()).expect("values fill the shape")
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// The raw little-endian bytes; cloning a [`Bytes`] does not copy them.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn into_data(self) -> Bytes {
        self.data
    }

    /// The values of an FP32 tensor; one copy.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        self.expect_dtype(DType::F32)?;
        Ok(self
            .data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }

    /// The values of an INT64 tensor; one copy.
    pub fn to_i64(&self) -> Result<Vec<i64>, TensorError> {
        self.expect_dtype(DType::I64)?;
        Ok(self
            .data
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")))
            .collect())
    }

    fn expect_dtype(&self, expected: DType) -> Result<(), TensorError> {
        if self.dtype == expected {
            return Ok(());
        }
        Err(TensorError::DType { expected: expected.name(), found: self.dtype.name() })
    }
}

/// Bytes that a tensor of this dtype and shape takes, with checked arithmetic. A shape is refused although an extent of 0
/// makes it empty if the others are too many: the product of some of them never overflows where this is `Ok`.
pub fn byte_length(dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
    if shape.len() > MAX_RANK {
        return Err(TensorError::Rank { rank: shape.len() });
    }
    let bytes = shape
        .iter()
        .try_fold(dtype.size(), |acc, &d| acc.checked_mul(d.max(1)))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| TensorError::Overflow { shape: shape.to_vec() })?;
    Ok(if shape.contains(&0) { 0 } else { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_length_that_does_not_fill_the_shape() {
        let err = HostTensor::new(DType::F32, vec![2, 3], Bytes::from(vec![0; 23])).unwrap_err();
        assert_eq!(err.to_string(), "shape [2, 3] of FP32 needs 24 bytes, 23 were given");
    }

    #[test]
    fn a_shape_that_overflows_is_an_error() {
        let err = byte_length(DType::F64, &[usize::MAX, 2]).unwrap_err();
        assert!(matches!(err, TensorError::Overflow { .. }));
        assert!(matches!(byte_length(DType::U8, &[1; 9]), Err(TensorError::Rank { rank: 9 })));
        // Found by the fuzzer: empty, but what a sample has cannot be counted.
        let samples = [0, usize::MAX / 8, 3, 3];
        assert!(matches!(byte_length(DType::F32, &samples), Err(TensorError::Overflow { .. })));
        assert!(matches!(byte_length(DType::F32, &[0, 1 << 20]), Ok(0)));
    }

    #[test]
    fn dtype_names_round_trip() {
        for (dtype, name) in DType::ALL {
            assert_eq!(DType::from_name(name), Some(dtype));
            assert_eq!(dtype.name(), name);
        }
    }
}
