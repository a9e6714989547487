//! Large tensors in pieces: a message carries the first [`CHUNK_BYTES`] of its tensors, the rest
//! follows in `TensorChunk` messages of the same stream.
//!
//! So that one gRPC message never has to be held whole by the transport on top of the tensor, and
//! HTTP/2 flow control pushes back on the sender in steps of a chunk. Cutting copies nothing: a
//! chunk is a slice of the tensor's [`Bytes`]. Putting together copies once.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{WireError, v1};

/// Bytes of tensor data that one message carries at most. Larger gains nothing (HTTP/2 frames are
/// smaller still); smaller costs a message header per piece.
pub const CHUNK_BYTES: usize = 1 << 20;

/// A message with tensors, in the order in which chunks complete them.
pub trait Carrier {
    fn tensors(&mut self) -> Vec<&mut v1::Tensor>;
}

macro_rules! carriers {
    ($($message:ident: $($field:ident),+;)+) => {$(
        impl Carrier for v1::$message {
            fn tensors(&mut self) -> Vec<&mut v1::Tensor> {
                let mut all = Vec::new();
                $(all.extend(self.$field.iter_mut());)+
                all
            }
        }
    )+};
}

carriers! {
    InferRequest: activation;
    InferReply: output;
    TrainPrepare: activation, labels;
    TrainPrepared: gradient;
    TrainForwarded: activation;
    TrainBackward: gradient;
    TrainEvaluate: activation, labels;
    GenerateStep: activation;
    StageWeights: tensors;
}

/// Takes what is over [`CHUNK_BYTES`] out of a message; the pieces are sent after it, in order.
pub fn split<M: Carrier>(message: &mut M) -> Vec<v1::TensorChunk> {
    let mut room = CHUNK_BYTES;
    let mut chunks = Vec::new();
    for tensor in message.tensors() {
        let mut rest = tensor.data.split_off(tensor.data.len().min(room));
        room -= tensor.data.len();
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(CHUNK_BYTES));
            chunks.push(v1::TensorChunk { data });
        }
    }
    chunks
}

/// Puts a message and its chunks together again.
#[derive(Debug)]
pub struct Assembler<M> {
    message: M,
    /// Tensors that are not complete: index, bytes so far, bytes in all.
    open: VecDeque<(usize, BytesMut, usize)>,
}

impl<M: Carrier> Assembler<M> {
    /// Refuses a message whose tensors say they have more than `limit` bytes together, as they are sent
    /// or as they are once they are decoded.
    ///
    /// Memory grows with what comes, not with what is announced.
    pub fn new(mut message: M, limit: usize) -> Result<Self, WireError> {
        let mut open = VecDeque::new();
        let limit = limit as u64;
        let total = message.tensors().iter().fold(0u64, |sum, t| sum.saturating_add(bytes_of(t)));
        if total > limit {
            return Err(WireError::TooLarge { bytes: total, limit });
        }
        for (index, tensor) in message.tensors().into_iter().enumerate() {
            let whole = tensor.data_bytes as usize;
            if tensor.data.len() > whole {
                let problem = format!("{} bytes came, {whole} were announced", tensor.data.len());
                return Err(WireError::Chunk { name: tensor.name.clone(), problem });
            }
            if tensor.data.len() < whole {
                let mut bytes = BytesMut::new();
                append(&mut bytes, &std::mem::take(&mut tensor.data), whole);
                open.push_back((index, bytes, whole));
            }
        }
        Ok(Self { message, open })
    }

    /// Whether another chunk has to come.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Adds the next chunk.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), WireError> {
        let Some((index, bytes, whole)) = self.open.front_mut() else {
            return Err(WireError::Chunk {
                name: String::new(),
                problem: "a chunk came for a message that is complete".into(),
            });
        };
        let (index, room) = (*index, *whole - bytes.len());
        if chunk.is_empty() || chunk.len() > room {
            let name = self.message.tensors()[index].name.clone();
            let problem = format!("a chunk of {} bytes, {room} are missing", chunk.len());
            return Err(WireError::Chunk { name, problem });
        }
        append(bytes, &chunk, *whole);
        if bytes.len() == *whole {
            let (index, bytes, _) = self.open.pop_front().expect("the front was just filled");
            self.message.tensors()[index].data = bytes.freeze();
        }
        Ok(())
    }

    /// The message with all its tensors.
    pub fn finish(self) -> Result<M, WireError> {
        match self.open.front() {
            None => Ok(self.message),
            Some((index, bytes, whole)) => {
                let mut message = self.message;
                let name = message.tensors()[*index].name.clone();
                let problem = format!("the stream ended after {} of {whole} bytes", bytes.len());
                Err(WireError::Chunk { name, problem })
            }
        }
    }
}

/// Room for as much again as has come, up to the whole: the allocator moves large blocks by their pages, without
/// copying (mremap).
fn append(bytes: &mut BytesMut, chunk: &[u8], whole: usize) {
    let needed = bytes.len() + chunk.len();
    if needed > bytes.capacity() {
        bytes.reserve(needed.saturating_mul(2).min(whole) - bytes.len());
    }
    bytes.extend_from_slice(chunk);
}

/// Bytes that a tensor takes here: what is sent, or what a codec makes of it.
fn bytes_of(tensor: &v1::Tensor) -> u64 {
    let floats = tensor.dtype == i32::from(v1::DType::F32);
    let decoded = tensor.shape.iter().try_fold(4u64, |bytes, &extent| bytes.checked_mul(extent));
    // A shape beyond all bounds is refused by name when it is decoded.
    tensor.data_bytes.max(decoded.filter(|_| floats).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(lengths: &[usize]) -> v1::StageWeights {
        let tensor = |(i, &n): (usize, &usize)| v1::Tensor {
            name: format!("t{i}"),
            dtype: v1::DType::U8.into(),
            shape: vec![n as u64],
            data: (0..n).map(|j| (i + j / 7) as u8).collect::<Vec<u8>>().into(),
            data_bytes: n as u64,
        };
        v1::StageWeights {
            weights: "seed:1".into(),
            tensors: lengths.iter().enumerate().map(tensor).collect(),
            stages: Vec::new(),
            adapters: String::new(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_message_survives_cutting(
            lengths in prop::collection::vec(
                prop_oneof![0usize..10, CHUNK_BYTES - 2..CHUNK_BYTES + 2, 0..3 * CHUNK_BYTES], 0..4),
        ) {
            let whole = message(&lengths);
            let mut first = whole.clone();
            let chunks = split(&mut first);
            let carried: usize = first.tensors.iter().map(|t| t.data.len()).sum();
            prop_assert!(carried <= CHUNK_BYTES);
            let mut assembler = Assembler::new(first, usize::MAX).unwrap();
            for chunk in chunks {
                prop_assert!(chunk.data.len() <= CHUNK_BYTES && assembler.is_open());
                assembler.push(chunk.data).unwrap();
            }
            prop_assert_eq!(assembler.finish().unwrap(), whole);
        }

        #[test]
        fn arbitrary_chunks_never_panic_or_overfill(
            announced in 0u64..40, inline in 0usize..40,
            chunks in prop::collection::vec(0usize..20, 0..6),
        ) {
            let mut m = message(&[inline]);
            m.tensors[0].data_bytes = announced;
            let Ok(mut assembler) = Assembler::new(m, 32) else { return Ok(()) };
            for n in chunks {
                if assembler.push(vec![0; n].into()).is_err() { break }
            }
            if let Ok(done) = assembler.finish() {
                prop_assert_eq!(done.tensors[0].data.len() as u64, announced);
            }
        }
    }

    #[test]
    fn a_small_message_is_passed_on_without_a_copy() {
        let mut m = message(&[100]);
        let before = m.tensors[0].data.as_ptr();
        assert!(split(&mut m).is_empty());
        let done = Assembler::new(m, 100).unwrap().finish().unwrap();
        assert_eq!(done.tensors[0].data.as_ptr(), before);
    }

    #[test]
    fn what_a_codec_would_make_of_it_counts() {
        let mut m = message(&[10]);
        m.tensors[0].shape = vec![1 << 10, 1 << 20];
        m.tensors[0].dtype = v1::DType::F32.into();
        let error = Assembler::new(m, 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the message's tensors have 4294967296 bytes, at most 1000 are accepted"
        );
    }

    #[test]
    fn too_much_and_too_little_are_named() {
        let error = Assembler::new(message(&[60, 60]), 100).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the message's tensors have 120 bytes, at most 100 are accepted"
        );
        let mut m = message(&[10]);
        m.tensors[0].data_bytes = 12;
        let error = Assembler::new(m, 100).unwrap().finish().unwrap_err();
        assert_eq!(error.to_string(), "tensor \"t0\": the stream ended after 10 of 12 bytes");
    }
}
