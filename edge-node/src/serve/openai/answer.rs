//! A response in its two forms: one JSON object, or server-sent events.
//!
//! What differs between completions and chat completions is a [`Form`]; the rest is here once.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde_json::{Value, json};

use super::{
    choices::{Choices, Usage},
    error::ApiError,
};
use crate::serve::text::Piece;

/// How an endpoint writes the choices of its answers.
pub trait Form: Send + 'static {
    /// What ids begin with.
    const ID: &'static str;
    /// `object` of a whole answer and of a chunk.
    const OBJECT: &'static str;
    const CHUNK: &'static str;

    /// What is streamed for a choice before its first piece.
    fn opening(&mut self, index: usize) -> Option<Value>;

    /// An element of a chunk's `choices`.
    fn chunk(&mut self, index: usize, piece: Piece) -> Value;

    /// An element of the whole answer's `choices`.
    fn whole(&mut self, index: usize, answer: Piece) -> Value;
}

/// What every object of one response begins with.
struct Envelope {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
}

impl Envelope {
    fn new<F: Form>(model: &str, object: &'static str) -> Self {
        let id = format!("{}-{:032x}", F::ID, rand::random::<u128>());
        Self { id, object, created: unix_seconds(), model: model.into() }
    }

    fn with(&self, choices: Vec<Value>, usage: Option<Usage>) -> Value {
        let Self { id, object, created, model } = self;
        let usage = usage.map(|Usage { prompt, generated }| {
            json!({
                "prompt_tokens": prompt,
                "completion_tokens": generated,
                "total_tokens": prompt + generated
            })
        });
        json!({
            "id": id, "object": object, "created": created, "model": model, "choices": choices,
            "usage": usage
        })
    }
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Waits for the whole answer.
pub async fn complete<F: Form>(
    mut form: F,
    model: &str,
    mut choices: Choices,
) -> Result<Response, ApiError> {
    let mut answers = vec![Piece::default(); choices.count()];
    while let Some(next) = choices.next().await {
        let (index, piece) = next?;
        let answer = &mut answers[index];
        answer.text += &piece.text;
        answer.tokens.extend(piece.tokens);
        answer.finish = piece.finish;
    }
    let written = answers.into_iter().enumerate().map(|(i, answer)| form.whole(i, answer));
    let envelope = Envelope::new::<F>(model, F::OBJECT);
    Ok(Json(envelope.with(written.collect(), Some(choices.usage()))).into_response())
}

/// Sends the answer as it is generated. A client that goes away drops the stream, and with it the
/// generations.
pub fn streamed<F: Form>(form: F, model: &str, choices: Choices, include_usage: bool) -> Response {
    let envelope = Envelope::new::<F>(model, F::CHUNK);
    let mut chunks =
        Chunks { form, envelope, choices: Some(choices), include_usage, ready: VecDeque::new() };
    chunks.open();
    let events = stream::unfold(chunks, |mut chunks| async {
        let data = chunks.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), chunks))
    });
    // Comments while nothing is generated: they also show that a client is gone.
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// The events of one response.
struct Chunks<F> {
    form: F,
    envelope: Envelope,
    /// None once the last piece was sent.
    choices: Option<Choices>,
    include_usage: bool,
    ready: VecDeque<String>,
}

impl<F: Form> Chunks<F> {
    fn open(&mut self) {
        let count = self.choices.as_ref().map_or(0, Choices::count);
        for index in 0..count {
            if let Some(choice) = self.form.opening(index) {
                self.push(vec![choice], None);
            }
        }
    }

    fn push(&mut self, choices: Vec<Value>, usage: Option<Usage>) {
        let mut chunk = self.envelope.with(choices, usage);
        if let Some(fields) = chunk.as_object_mut().filter(|_| !self.include_usage) {
            fields.remove("usage");
        }
        self.ready.push_back(chunk.to_string());
    }

    /// The data of the next event.
    async fn next(&mut self) -> Option<String> {
        if self.ready.is_empty() {
            let mut choices = self.choices.take()?;
            match choices.next().await {
                Some(Ok((index, piece))) => {
                    let choice = self.form.chunk(index, piece);
                    self.push(vec![choice], None);
                    self.choices = Some(choices);
                }
                Some(Err(error)) => self.ready.push_back(ApiError::from(error).body().to_string()),
                None => {
                    if self.include_usage {
                        self.push(Vec::new(), Some(choices.usage()));
                    }
                    self.ready.push_back("[DONE]".into());
                }
            }
        }
        self.ready.pop_front()
    }
}
