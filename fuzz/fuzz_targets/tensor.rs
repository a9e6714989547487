//! A request of the split protocol, as bytes from the wire: protobuf, chunks, then the tensors.
#![no_main]

use bytes::Bytes;
use cleave_shared::{
    codec,
    wire::{self, Assembler, v1},
};
use libfuzzer_sys::{Corpus, fuzz_target};
use prost::Message;

/// What the cloud accepts of one request here, bytes.
const LIMIT: usize = 1 << 20;
const CODECS: [&str; 4] = ["f32", "int8", "topk:0.1", "f32+zstd"];

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&choice, data)) = data.split_first() else { return Corpus::Reject };
    // The message, and what is cut off its end comes as chunks.
    let (cut, data) = match data.split_first() {
        Some((&cut, data)) => (usize::from(cut).min(data.len()), data),
        None => return Corpus::Reject,
    };
    let (message, chunks) = data.split_at(data.len() - cut);
    let Ok(request) = v1::InferRequest::decode(Bytes::copy_from_slice(message)) else {
        return Corpus::Reject;
    };
    let Ok(mut assembler) = Assembler::new(request, LIMIT) else { return Corpus::Keep };
    for chunk in chunks.chunks(16) {
        if assembler.push(Bytes::copy_from_slice(chunk)).is_err() {
            return Corpus::Keep;
        }
    }
    let Ok(request) = assembler.finish() else { return Corpus::Keep };
    let name = CODECS[usize::from(choice) % CODECS.len()];
    let codec = codec::by_name(name).expect("a codec of the list");
    if let Ok(tensors) = wire::decode(request.activation, &*codec) {
        for (_, tensor) in tensors {
            // A tensor that was accepted holds what its shape says.
            assert_eq!(tensor.data().len(), tensor.elements() * tensor.dtype().size());
        }
    }
    Corpus::Keep
});
