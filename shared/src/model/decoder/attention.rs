//! Causal self-attention (Vaswani et al. 2017) with grouped queries (Ainslie et al. 2023), and the
//! cache of keys and values that makes a new token cost one position.
//!
//! The cache of a stage is two tensors `[batch, key-value heads, capacity, width]`, filled from the
//! left. Room is made [`CHUNK`] positions at a time, new positions are written in place, and the
//! product reads the filled part by strides: a step copies its own position only.

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};

use super::{
    advance, place,
    rope::{Rope, rotate},
};
use crate::model::{ModelError, Pass, StageCache, Value};

/// Positions that a cache grows by.
const CHUNK: usize = 128;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Number of query heads, a multiple of `key_value`.
    pub query: usize,
    /// Number of key and value heads; each serves `query / key_value` neighbouring query heads.
    pub key_value: usize,
    /// Features of a head.
    pub width: usize,
    /// Most positions of a sequence.
    pub positions: usize,
}

impl Heads {
    /// Bytes that a cache of this many positions takes: keys and values, FP32.
    pub fn cache_bytes(&self, positions: usize) -> usize {
        2 * self.key_value * self.width * 4 * capacity(positions, self.positions)
    }

    /// Multiply-adds count two: scores and their sum of values, every position with every other one.
    pub fn flops(&self) -> usize {
        2 * 2 * self.positions * self.positions * self.query * self.width
    }

    /// `[batch, sequence, heads · width]` → `[batch, heads, sequence, width]`
    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, sequence, features] = x.dims();
        x.reshape([batch, sequence, features / self.width, self.width]).swap_dims(1, 2)
    }
}

/// Attention of the new positions to themselves and to all before them.
///
/// query `[batch, sequence, query · width]`, key and value `[batch, sequence, key_value · width]` →
/// `[batch, sequence, query · width]`
pub fn attend(
    heads: &Heads,
    [query, key, value]: [Tensor<3>; 3],
    rope: Option<&Rope>,
    pass: &mut Pass<'_>,
) -> Result<Tensor<3>, ModelError> {
    let [batch, new, features] = query.dims();
    let start = place(pass, new, heads.positions)?;
    let [mut query, mut key, value] = [query, key, value].map(|x| heads.split(x));
    let device = query.device();
    if let Some(rope) = rope {
        let angles = rope.at(start, new, &device);
        (query, key) = (rotate(query, &angles), rotate(key, &angles));
    }
    let (key, value) = match pass.cache.as_deref_mut() {
        Some(cache) => extend(cache, key, value, heads.positions, pass.stage)?,
        None => (key, value),
    };
    advance(pass, new);
    let (groups, all) = (heads.query / heads.key_value, start + new);
    // Query heads that share keys are rows of one product.
    let query = query.reshape([batch, heads.key_value, groups * new, heads.width]);
    let scores = query.matmul(key.swap_dims(2, 3)).mul_scalar((heads.width as f32).powf(-0.5));
    let scores = scores.reshape([batch * heads.key_value, groups, new, all]);
    let scores = if new > 1 { scores + mask(start, new, &device) } else { scores };
    let weights = softmax(scores, 3).reshape([batch, heads.key_value, groups * new, all]);
    let mixed = weights.matmul(value).reshape([batch, heads.query, new, heads.width]);
    Ok(mixed.swap_dims(1, 2).reshape([batch, new, features]))
}

/// 0 where a new position may look, −∞ at those behind it: `[1, 1, new, start + new]`
fn mask(start: usize, new: usize, device: &Device) -> Tensor<4> {
    let all = start + new;
    let row = |i: usize| (0..all).map(move |j| if j > start + i { f32::NEG_INFINITY } else { 0.0 });
    let values: Vec<f32> = (0..new).flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, new, all]), device)
}

/// Adds the new keys and values; gives all of them, as views of the cache.
fn extend(
    cache: &mut StageCache,
    key: Tensor<4>,
    value: Tensor<4>,
    most: usize,
    stage: &str,
) -> Result<(Tensor<4>, Tensor<4>), ModelError> {
    let mut kept = std::mem::take(&mut cache.tensors).into_iter();
    let mut both = Vec::with_capacity(2);
    for new in [key, value] {
        let old = match kept.next() {
            None => None,
            Some(Value::R4(old)) if fits(&old, &new) => Some(old),
            Some(other) => {
                return Err(ModelError::Input {
                    stage: stage.into(),
                    expected: format!("the batch that the sequence began with: {:?}", other.dims()),
                    found: format!("{:?}", new.dims()),
                });
            }
        };
        let all = cache.position + new.dims()[2];
        let store = write(old, cache.position, new, most);
        both.push(store.clone().narrow(2, 0, all));
        cache.tensors.push(Value::R4(store));
    }
    let value = both.pop().expect("two were pushed");
    Ok((both.pop().expect("two were pushed"), value))
}

/// Whether these positions belong to the sequences of this cache.
fn fits(old: &Tensor<4>, new: &Tensor<4>) -> bool {
    let ([a, b, _, c], [d, e, _, f]) = (old.dims(), new.dims());
    [a, b, c] == [d, e, f]
}

/// The store with `new` at `position`; in place while there is room, since nobody else holds it.
fn write(old: Option<Tensor<4>>, position: usize, new: Tensor<4>, most: usize) -> Tensor<4> {
    let [batch, heads, count, width] = new.dims();
    let end = position + count;
    let store = match old {
        Some(old) if old.dims()[2] >= end => old,
        smaller => {
            let room = Tensor::zeros([batch, heads, capacity(end, most), width], &new.device());
            match smaller {
                Some(old) => {
                    let had = old.dims()[2];
                    room.slice_assign([0..batch, 0..heads, 0..had, 0..width], old)
                }
                None => room,
            }
        }
    };
    store.slice_assign([0..batch, 0..heads, position..end, 0..width], new)
}

/// Positions that are made room for when `needed` are needed.
fn capacity(needed: usize, most: usize) -> usize {
    needed.next_multiple_of(CHUNK).min(most)
}
