//! Continuing a sequence of tokens, one at a time, wherever the cut is.
//!
//! Both nodes keep the keys and values of their own attention ([`Sequence`]), so that after the prompt
//! each token costs one position of head, link and tail. The node that has the last stage also draws
//! the next token ([`Tail`], [`Sampler`]): logits, which are as wide as the vocabulary, cross no link.
//! What a draw depends on is the logits, the seed and how many were drawn before, so the same seed gives
//! the same tokens at every split point.
//!
//! What caches may take is promised before a sequence begins and given back when it ends: [`Sessions`]
//! is the pure accounting, [`SessionTable`] shares it and publishes it as metrics.

mod sampler;
mod sequence;
mod session;
mod table;

pub use self::{
    sampler::{Choice, SampleError, Sampler},
    sequence::{GenerateError, Sequence, Tail},
    session::{Limits, SessionError, Sessions, Share},
    table::{Lease, SessionTable},
};
