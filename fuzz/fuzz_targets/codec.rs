//! Bytes that say they are an encoded tensor, for every codec and any shape; and what a codec makes of a tensor.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use cleave_shared::{
    codec,
    tensor::{DType, HostTensor, byte_length},
};
use libfuzzer_sys::fuzz_target;

const BASES: [&str; 9] =
    ["f32", "f16", "bf16", "int8", "int4", "topk:0.1", "topk:1", "randk:0.01", "randk:0.5"];
const STAGES: [&str; 3] = ["", "+zstd", "+lz4"];
/// A node bounds this by `max_activation_bytes` before it decodes.
const MOST_ELEMENTS: usize = 1 << 16;

#[derive(Debug, Arbitrary)]
struct Input {
    base: u8,
    stage: u8,
    shape: Vec<u16>,
    seed: u64,
    encode: bool,
    data: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let base = BASES[usize::from(input.base) % BASES.len()];
    let stage = STAGES[usize::from(input.stage) % STAGES.len()];
    let codec = codec::by_name(&format!("{base}{stage}")).expect("a codec of the list");
    let shape: Vec<usize> = input.shape.iter().take(8).map(|&d| d.into()).collect();
    let elements = shape.iter().try_fold(1usize, |all, &d| all.checked_mul(d));
    let most = codec.most_bytes(&shape);
    let Some(elements) = elements.filter(|&n| n <= MOST_ELEMENTS) else { return };
    if !input.encode {
        if let Ok(tensor) = codec.decode(shape.clone(), Bytes::from(input.data)) {
            assert_eq!((tensor.shape(), tensor.elements()), (&shape[..], elements));
        }
        return;
    }
    // Empty, and its other extents are more than any memory has: there is no such tensor to encode.
    let (Ok(most), Ok(_)) = (most, byte_length(DType::F32, &shape)) else { return };
    // Any floats, infinite ones and NaN among them.
    let mut floats: Vec<f32> =
        input.data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    floats.resize(elements, 0.5);
    let encoded = codec.encode_seeded(HostTensor::from_f32(shape.clone(), &floats), input.seed);
    assert!(encoded.len() <= most, "{base}{stage} {shape:?}");
    let decoded = codec.decode(shape, encoded).expect("what this codec has encoded");
    assert_eq!(decoded.elements(), elements);
    if base == "f32" {
        let same = decoded.to_f32().expect("floats");
        assert!(same.iter().zip(&floats).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
});
