//! Text in, text out: what people write as token ids, and token ids as text again.
//!
//! A language model comes with a `tokenizer.json`, which says everything about how text is cut into
//! tokens: normalisation, vocabulary, merges, special tokens. [`Tokenizer`] runs it with the library
//! that wrote it, so that ids are those of Hugging Face. For an encoder, [`Tokenizer::encode_batch`]
//! makes rectangular tensors and the padding mask; for a generator, [`TextStream`] turns ids into text
//! as they come, whole characters only.

mod stream;
mod tokenizer;

pub use self::{
    stream::TextStream,
    tokenizer::{TextError, TokenBatch, Tokenizer},
};
