//! What decoder-only transformers are made of: one embedding, one attention, norms, and the head.
//!
//! GPT-2 and the Llama class differ in their norms, their positions and their feed-forward layers;
//! the rest is here once. Token ids come in as INT64 `[batch, sequence]`, hidden states
//! `[batch, sequence, hidden]` go from stage to stage, logits `[batch, sequence, vocabulary]` come out.
//!
//! While a sequence is generated, a call brings the new positions only; [`attention`] keeps keys and
//! values of the earlier ones in the stage's cache, and [`place`] says where the new ones stand.

mod attention;
mod embedding;
mod head;
mod rope;

use burn::tensor::Tensor;

pub use self::rope::RopeScaling;
pub(super) use self::{
    attention::{Heads, attend},
    embedding::Embedding,
    head::{Head, HeadNames},
    rope::Rope,
};
use super::{Activation, ModelError, Norm, Pass, Value};

/// Why a tied model is not trained.
pub(super) const TIED: &str = "a tied head shares its table with the embedding, which a cut gives to \
    another node; set model.tied = false to train (the head then starts as a copy)";

/// Where the `new` positions of this call begin, and that they fit a model of `most` positions.
///
/// A cache that is present is not moved on: [`advance`] does that once the stage has succeeded.
fn place(pass: &Pass<'_>, new: usize, most: usize) -> Result<usize, ModelError> {
    let start = pass.cache.as_ref().map_or(0, |cache| cache.position);
    if new > 0 && start + new <= most {
        return Ok(start);
    }
    Err(ModelError::Input {
        stage: pass.stage.into(),
        expected: format!("1 to {} more positions", most.saturating_sub(start)),
        found: format!("{new}"),
    })
}

/// Notes in the cache, if there is one, that `new` more positions are done.
fn advance(pass: &mut Pass<'_>, new: usize) {
    if let Some(cache) = pass.cache.as_deref_mut() {
        cache.position += new;
    }
}

/// The hidden states `[batch, sequence, hidden]` that reach a stage.
pub(super) fn hidden_states(
    stage: &str,
    input: Activation,
    hidden: usize,
) -> Result<Tensor<3>, ModelError> {
    let found = match input.into_single(stage)? {
        Value::R3(x) if x.dims()[2] == hidden => return Ok(x),
        other => other.dims(),
    };
    Err(ModelError::Input {
        stage: stage.into(),
        expected: format!("FP32 [batch, sequence, {hidden}]"),
        found: format!("shape {found:?}"),
    })
}
