//! `POST /v1/completions`: text goes on.

use std::collections::BTreeMap;

use axum::response::Response;
use cleave_shared::text::Tokenizer;
use serde_json::{Map, Value, json};

use super::{
    answer::{self, Form},
    choices::Choices,
    error::ApiError,
    fields::{Fields, is_nothing},
    parameters::{MAX_CHOICES, Parameters},
};
use crate::serve::{
    Generator, InferError,
    text::{Piece, TextService, Token, reason},
};

/// OpenAI's default.
const MAX_TOKENS: usize = 16;

/// `prompt` in its four forms.
enum Prompts {
    Texts(Vec<String>),
    Ids(Vec<Vec<i64>>),
}

/// Answers one request body.
pub async fn completions<G: Generator>(
    service: &TextService<G>,
    body: &[u8],
) -> Result<Response, ApiError> {
    let mut fields = Fields::read(body)?;
    let mut parameters = Parameters::take(&mut fields, service.model())?;
    service.check_generates()?;
    parameters.max_tokens.get_or_insert(MAX_TOKENS);
    let asked = prompts(fields.value("prompt"))?;
    let echo = fields.flag("echo")?;
    let logprobs = fields.integer("logprobs", 0..=5)?;
    if let Some(count) = logprobs {
        parameters.check_alternatives("logprobs", count)?;
        if echo {
            let message = "logprobs of an echoed prompt are not supported; leave one of them out";
            return Err(ApiError::field("logprobs", message));
        }
    }
    let n = parameters.n;
    fields.neutral("best_of", |best| best.as_u64() == Some(n as u64))?;
    fields.neutral("suffix", is_nothing)?;
    fields.finish()?;

    let tokenizer = service.tokenizer()?.clone();
    let (prompts, texts) = encode(service, &tokenizer, asked, echo).await?;
    if prompts.len() * n > MAX_CHOICES {
        let message = format!("prompts times n is more than {MAX_CHOICES}; send fewer at once");
        return Err(ApiError::field("n", message));
    }
    let choices = Choices::begin(service, &prompts, &parameters).await?;
    let echoed = texts.into_iter().flat_map(|text| std::iter::repeat_n(text, n)).collect();
    let form = Completion { tokenizer, logprobs, echoed, offsets: BTreeMap::new() };
    if parameters.stream {
        let usage = parameters.include_usage;
        Ok(answer::streamed(form, service.model(), choices, usage))
    } else {
        answer::complete(form, service.model(), choices).await
    }
}

fn prompts(value: Option<Value>) -> Result<Prompts, ApiError> {
    let what =
        "prompt must be a string, a list of strings, a list of token ids, or a list of such lists";
    let wrong = || ApiError::field("prompt", what);
    let ids = |items: &[Value]| items.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
    let Some(value) = value else {
        return Err(ApiError::field("prompt", "prompt is missing"));
    };
    if let Value::String(text) = value {
        return Ok(Prompts::Texts(vec![text]));
    }
    let Value::Array(items) = value else { return Err(wrong()) };
    match items.first() {
        None => Err(ApiError::field("prompt", "prompt is empty")),
        Some(Value::String(_)) => {
            let texts = items.iter().map(|item| item.as_str().map(String::from));
            texts.collect::<Option<_>>().map(Prompts::Texts).ok_or_else(wrong)
        }
        Some(Value::Array(_)) => {
            let lists = items.iter().map(|item| ids(item.as_array()?));
            lists.collect::<Option<_>>().map(Prompts::Ids).ok_or_else(wrong)
        }
        Some(_) => ids(&items).map(|ids| Prompts::Ids(vec![ids])).ok_or_else(wrong),
    }
}

/// The prompts as token ids, and for echo as text.
async fn encode<G: Generator>(
    service: &TextService<G>,
    tokenizer: &Tokenizer,
    asked: Prompts,
    echo: bool,
) -> Result<(Vec<Vec<i64>>, Vec<String>), InferError> {
    let bad = |e: cleave_shared::text::TextError| InferError::BadInput(e.to_string());
    match asked {
        Prompts::Texts(texts) => {
            let mut prompts = Vec::with_capacity(texts.len());
            for text in &texts {
                prompts.push(service.encode(text.clone()).await?);
            }
            let echoed = if echo { texts } else { vec![String::new(); prompts.len()] };
            Ok((prompts, echoed))
        }
        Prompts::Ids(prompts) => {
            let text =
                |ids: &Vec<i64>| if echo { tokenizer.decode(ids) } else { Ok(String::new()) };
            let echoed = prompts.iter().map(text).collect::<Result<_, _>>().map_err(bad)?;
            Ok((prompts, echoed))
        }
    }
}

/// Choices of `text_completion` objects.
struct Completion {
    tokenizer: Tokenizer,
    logprobs: Option<u64>,
    /// What goes before the answer of each choice.
    echoed: Vec<String>,
    /// Characters of each choice so far, for the offsets of its tokens.
    offsets: BTreeMap<usize, usize>,
}

impl Completion {
    fn choice(&mut self, index: usize, piece: Piece) -> Value {
        let logprobs = self.logprobs.map(|top| self.logprobs(index, &piece.tokens, top));
        let text = std::mem::take(&mut self.echoed[index]) + &piece.text;
        json!({
            "index": index, "text": text, "logprobs": logprobs,
            "finish_reason": piece.finish.map(reason)
        })
    }

    fn logprobs(&mut self, index: usize, tokens: &[Token], top: u64) -> Value {
        let at = self.offsets.entry(index).or_default();
        let (mut texts, mut offsets, mut best) = (Vec::new(), Vec::new(), Vec::new());
        for token in tokens {
            let text = token_text(&self.tokenizer, token.id);
            offsets.push(*at);
            *at += text.chars().count();
            best.push(Map::from_iter([(text.clone(), token.logprob.into())]));
            texts.push(text);
        }
        let chosen: Vec<f32> = tokens.iter().map(|token| token.logprob).collect();
        json!({
            "tokens": texts, "token_logprobs": chosen, "text_offset": offsets,
            "top_logprobs": (top > 0).then_some(best)
        })
    }
}

impl Form for Completion {
    const ID: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";

    fn opening(&mut self, _: usize) -> Option<Value> {
        None
    }

    fn chunk(&mut self, index: usize, piece: Piece) -> Value {
        self.choice(index, piece)
    }

    fn whole(&mut self, index: usize, answer: Piece) -> Value {
        self.choice(index, answer)
    }
}

/// The text of a token alone; as the vocabulary writes it where it is no text.
pub fn token_text(tokenizer: &Tokenizer, id: i64) -> String {
    let text = tokenizer.decode(&[id]).ok().filter(|text| !text.is_empty());
    text.or_else(|| tokenizer.token(id)).unwrap_or_default()
}
