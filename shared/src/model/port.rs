//! What goes into a model, between its stages, and out: names, dtypes, shapes without the batch.

use crate::tensor::DType;

/// Extent of one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Any extent from 1 to this, such as the length of a sequence.
    UpTo(usize),
}

impl Dim {
    /// The largest extent.
    pub fn most(self) -> usize {
        match self {
            Dim::Fixed(n) | Dim::UpTo(n) => n,
        }
    }
}

/// One named tensor; the batch, which comes first, is left out of the shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<Dim>,
    /// Whether it may be left out, such as the lengths of samples that are not padded.
    pub optional: bool,
    /// Integers are 0 or more and below this, such as token ids below the size of the vocabulary.
    pub below: Option<i64>,
}

impl Port {
    /// FP32 of fixed extents.
    pub fn float(name: &str, shape: &[usize]) -> Self {
        Self::new(name, DType::F32, shape.iter().map(|&n| Dim::Fixed(n)).collect())
    }

    /// FP32 `[sequence, features...]` of any length up to `longest`.
    pub fn sequence(name: &str, longest: usize, features: &[usize]) -> Self {
        let rest = features.iter().map(|&n| Dim::Fixed(n));
        Self::new(name, DType::F32, std::iter::once(Dim::UpTo(longest)).chain(rest).collect())
    }

    /// INT64 `[sequence]` of any length up to `longest`: token ids, a padding mask.
    pub fn tokens(name: &str, longest: usize) -> Self {
        Self::new(name, DType::I64, vec![Dim::UpTo(longest)])
    }

    /// One INT64 of each sample, such as its length.
    pub fn integer(name: &str) -> Self {
        Self::new(name, DType::I64, Vec::new())
    }

    fn new(name: &str, dtype: DType, shape: Vec<Dim>) -> Self {
        Self { name: name.into(), dtype, shape, optional: false, below: None }
    }

    /// The same, which may be left out.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// The same, with integers from 0 to `bound` exclusive.
    pub fn below(self, bound: usize) -> Self {
        Self { below: i64::try_from(bound).ok(), ..self }
    }

    /// The shape at its largest.
    pub fn largest(&self) -> Vec<usize> {
        self.shape.iter().map(|d| d.most()).collect()
    }

    /// Bytes of one sample at its largest.
    pub fn bytes(&self) -> usize {
        self.largest().iter().product::<usize>() * self.dtype.size()
    }
}
