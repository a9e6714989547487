//! One sequence on one node: its stages, their caches, and how far it is.

use std::sync::Arc;

use super::{Choice, SampleError, Sampler};
use crate::{
    model::{ModelError, Segment, SegmentCache},
    wire::NamedTensors,
};

/// Why a sequence ends early.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerateError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Sample(#[from] SampleError),
}

/// A head's or a tail's half of one sequence. After an error it is of no more use.
pub struct Sequence {
    segment: Arc<Segment>,
    cache: SegmentCache,
    done: usize,
    /// Most positions, as was agreed when it began.
    most: usize,
}

impl Sequence {
    /// A new sequence of at most `most` positions.
    pub fn new(segment: Arc<Segment>, most: usize) -> Self {
        Self { segment, cache: SegmentCache::default(), done: 0, most }
    }

    /// The next positions, of one sequence: each tensor is `[1, new, ...]`.
    pub fn extend(&mut self, input: &NamedTensors) -> Result<NamedTensors, ModelError> {
        let new = match input.first().map(|(_, tensor)| tensor.shape()) {
            Some([1, new, ..]) if *new > 0 && self.done + new <= self.most => *new,
            found => {
                let left = self.most - self.done;
                return Err(ModelError::Input {
                    stage: "generation".into(),
                    expected: format!(
                        "one sequence, 1 to {left} more positions: [1, positions, ...]"
                    ),
                    found: format!("{found:?}"),
                });
            }
        };
        let output = self.segment.infer_next(input, &mut self.cache)?;
        self.done += new;
        Ok(output)
    }

    /// Bytes of its caches.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }
}

/// A sequence that ends with the model's last stage, and draws the tokens.
pub struct Tail {
    sequence: Sequence,
    sampler: Sampler,
    drawn: u64,
}

impl Tail {
    pub fn new(sequence: Sequence, sampler: Sampler) -> Self {
        Self { sequence, sampler, drawn: 0 }
    }

    /// The token that follows these positions and all before them.
    pub fn next(&mut self, input: &NamedTensors) -> Result<Choice, GenerateError> {
        let output = self.sequence.extend(input)?;
        let wrong = |found: String| ModelError::Input {
            stage: "sampler".into(),
            expected: "logits FP32 [1, 1, vocabulary]".into(),
            found,
        };
        let logits = match output.as_slice() {
            [(_, logits)] if matches!(logits.shape(), [1, 1, _]) => logits,
            other => return Err(wrong(format!("{} tensors", other.len())).into()),
        };
        let logits = logits.to_f32().map_err(|e| wrong(e.to_string()))?;
        let choice = self.sampler.choose(&logits, self.drawn)?;
        self.drawn += 1;
        Ok(choice)
    }

    pub fn cache_bytes(&self) -> usize {
        self.sequence.cache_bytes()
    }
}
