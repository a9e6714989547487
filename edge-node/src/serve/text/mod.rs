//! Text on top of a [`Generator`], which knows token ids only.
//!
//! Text or a chat becomes token ids ([`TextFiles`], `template`), the generator continues them, and
//! `pieces` turns its tokens into text that is final (`stop` cuts it at stop strings). The OpenAI
//! endpoints and `ModelStreamInfer` are two forms of the same answers.

mod files;
mod pieces;
mod stop;
mod template;

use std::sync::Arc;

use cleave_shared::text::{TextError, Tokenizer};

use self::stop::Stops;
pub use self::{
    files::TextFiles,
    pieces::{Piece, Pieces, Token},
    template::{ChatTemplate, Message},
};
use super::{Finish, Generation, Generator, InferError, Sampling};

/// Most stop strings of one request.
pub const MAX_STOPS: usize = 4;

/// Answers prompts with text.
pub struct TextService<G> {
    generator: Arc<G>,
    /// The name that clients ask for.
    model: String,
    files: Arc<TextFiles>,
    /// Most tokens that a request may ask for.
    max_tokens: usize,
}

/// What to continue and how, checked where it came from.
#[derive(Debug, Clone)]
pub struct TextRequest {
    pub prompt: Vec<i64>,
    /// None: as many as there is room for.
    pub max_tokens: Option<usize>,
    pub sampling: Sampling,
    /// At most [`MAX_STOPS`], none of them empty.
    pub stop: Vec<String>,
}

impl<G: Generator> TextService<G> {
    pub fn new(generator: Arc<G>, model: String, files: TextFiles, max_tokens: usize) -> Self {
        Self { generator, model, files: Arc::new(files), max_tokens }
    }

    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the served model continues sequences at all.
    pub fn generates(&self) -> bool {
        self.generator.positions() > 0
    }

    pub fn check_generates(&self) -> Result<(), InferError> {
        if self.generates() {
            return Ok(());
        }
        let model = &self.model;
        Err(InferError::BadInput(format!(
            "model {model:?} does not generate text; use /v2/models/{model}/infer"
        )))
    }

    /// Converts between text and tokens; an error if the edge was given no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer, InferError> {
        self.files.tokenizer.as_ref().ok_or_else(|| {
            InferError::BadInput(
                "this edge has no tokenizer: set weights.tokenizer to a tokenizer.json".into(),
            )
        })
    }

    /// Token ids of a prompt, with the special tokens that the model wants around a text.
    pub async fn encode(&self, text: String) -> Result<Vec<i64>, InferError> {
        let tokenizer = self.tokenizer()?.clone();
        aside(move || tokenizer.encode(&text).map_err(|e| bad_text(&e))).await
    }

    /// Token ids of a chat, up to where the assistant speaks.
    pub async fn encode_chat(&self, messages: Vec<Message>) -> Result<Vec<i64>, InferError> {
        let (tokenizer, files) = (self.tokenizer()?.clone(), self.files.clone());
        aside(move || {
            let template = files.template.as_ref().map_err(|why| {
                InferError::BadInput(format!("{why}; without one, use /v1/completions"))
            })?;
            let text = template.render(&messages).map_err(InferError::BadInput)?;
            // The template writes the special tokens itself.
            tokenizer.encode_plain(&text).map_err(|e| bad_text(&e))
        })
        .await
    }

    /// Begins an answer. The generator refuses ids that its model does not have.
    pub async fn start(&self, request: TextRequest) -> Result<Pieces, InferError> {
        self.check_generates()?;
        let max_tokens = self.max_tokens(request.prompt.len(), request.max_tokens)?;
        let decoder = self.files.tokenizer.as_ref().map(Tokenizer::decode_stream);
        let events = self.generator.generate(Generation {
            prompt: request.prompt,
            max_tokens,
            sampling: request.sampling,
            stop: self.files.ends.clone(),
        });
        Ok(Pieces::new(events.await?, decoder, Stops::new(request.stop), max_tokens))
    }

    /// How many tokens to generate after a prompt.
    fn max_tokens(&self, prompt: usize, asked: Option<usize>) -> Result<usize, InferError> {
        let positions = self.generator.positions();
        let bad = |message| Err(InferError::BadInput(message));
        if prompt == 0 {
            return bad("the prompt has no tokens; send at least one".into());
        }
        let room = positions.saturating_sub(prompt);
        if room == 0 {
            return Err(InferError::TooLong(format!(
                "the prompt has {prompt} tokens; the model has {positions} positions for prompt and \
                 answer"
            )));
        }
        match asked {
            None => Ok(room.min(self.max_tokens)),
            Some(0) => bad("max_tokens is 0; ask for at least one token".into()),
            Some(asked) if asked > room => Err(InferError::TooLong(format!(
                "the prompt has {prompt} tokens and max_tokens is {asked}; the model has {positions} \
                 positions for both: ask for at most {room}"
            ))),
            Some(asked) if asked > self.max_tokens => {
                bad(format!("max_tokens is {asked}; this edge allows at most {}", self.max_tokens))
            }
            Some(asked) => Ok(asked),
        }
    }
}

/// Why an answer ended, as both protocols call it.
pub fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

/// Work that takes a while for a long text, away from the async runtime's threads.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InferError> + Send + 'static,
) -> Result<T, InferError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| InferError::Internal(format!("the prompt could not be encoded: {e}")))?
}

fn bad_text(error: &TextError) -> InferError {
    InferError::BadInput(error.to_string())
}
