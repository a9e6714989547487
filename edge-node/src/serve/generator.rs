//! The seam between front ends and whatever generates tokens.

use std::pin::Pin;

use tokio_stream::Stream;

use super::InferError;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0: all.
    pub top_k: usize,
    /// 1.0: all.
    pub top_p: f32,
    pub seed: u64,
}

/// One sequence to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    pub prompt: Vec<i64>,
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Token ids that end the sequence; they are not given out.
    pub stop: Vec<i64>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    Stop,
    Length,
}

/// What a generation yields, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Token { id: i64, logprob: f32 },
    End(Finish),
}

pub type Events = Pin<Box<dyn Stream<Item = Result<Event, InferError>> + Send>>;

/// What continues sequences of tokens.
pub trait Generator: Send + Sync + 'static {
    /// Longest sequence, prompt included; 0 if the served model does not generate.
    fn positions(&self) -> usize;

    /// Checks the request and begins; dropping the stream ends the generation on both nodes.
    fn generate(
        &self,
        request: Generation,
    ) -> impl Future<Output = Result<Events, InferError>> + Send;
}
