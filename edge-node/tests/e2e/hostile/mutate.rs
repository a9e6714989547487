//! Changes to well-formed bytes, as a fuzzer makes them; the same seed makes the same.

use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Where lengths, counts and signs turn over.
const EDGES: [u64; 9] =
    [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];

/// One to four changes; sometimes a piece of `other` comes in.
pub fn bytes(random: &mut ChaCha8Rng, good: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(1..=4) {
        change(random, &mut bytes, other);
    }
    bytes
}

fn change(random: &mut ChaCha8Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..7) {
        // A bit.
        0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
        // A byte.
        1 if at < bytes.len() => bytes[at] = random.random(),
        // The end is missing.
        2 => bytes.truncate(at),
        // A piece is missing.
        3 => drop(bytes.drain(at..(at + random.random_range(0..32)).min(bytes.len()))),
        // A piece is there twice.
        4 => {
            let piece = bytes[at..(at + random.random_range(0..64)).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        // A number at its limit, as protobuf writes it.
        5 => {
            let number = *EDGES.choose(random).expect("there are some");
            let mut varint = Vec::new();
            prost::encoding::encode_varint(number, &mut varint);
            let end = (at + varint.len()).min(bytes.len());
            bytes.splice(at..end, varint);
        }
        // A piece of another message.
        _ => {
            let from = random.random_range(0..=other.len());
            let to = random.random_range(from..=other.len().min(from + 256));
            bytes.splice(at..at, other[from..to].iter().copied());
        }
    }
}

/// JSON that is well-formed and says something else.
pub fn json(random: &mut ChaCha8Rng, good: &Value) -> Value {
    let mut value = good.clone();
    let nodes = count(&value);
    for _ in 0..random.random_range(1..=2) {
        let mut at = random.random_range(0..nodes);
        replace(&mut value, &mut at, &odd(random));
    }
    value
}

fn odd(random: &mut ChaCha8Rng) -> Value {
    let nested = |depth| (0..depth).fold(json!(1.0), |inner, _| json!([inner]));
    let all = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(""),
        json!("\u{0}\u{202e}é"),
        json!("x".repeat(4096)),
        json!([]),
        json!({}),
        json!({ "name": [] }),
        json!(vec![0.5; 4096]),
        nested(64),
        nested(200),
    ];
    all.choose(random).expect("there are some").clone()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Replaces the node with this number, counted as [`count`] does.
fn replace(value: &mut Value, at: &mut usize, by: &Value) -> bool {
    if *at == 0 {
        *value = by.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, at, by)),
        Value::Object(fields) => fields.values_mut().any(|field| replace(field, at, by)),
        _ => false,
    }
}
