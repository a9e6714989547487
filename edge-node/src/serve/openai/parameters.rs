//! Parameters that completions and chat completions share.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{
    error::ApiError,
    fields::{Fields, is_nothing},
};
use crate::serve::{Sampling, request::shown, text::MAX_STOPS};

/// Most answers of one request: prompts times `n`. Each is a generation of its own.
pub const MAX_CHOICES: usize = 16;

/// How to answer, whatever the question.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Answers to each prompt.
    pub n: usize,
    pub max_tokens: Option<usize>,
    /// The first answer's; see [`Parameters::sampling`].
    sampling: Sampling,
    pub stop: Vec<String>,
    pub stream: bool,
    /// Whether a stream ends with the number of tokens.
    pub include_usage: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl Parameters {
    /// Takes the shared fields; `model` is the one served.
    pub fn take(fields: &mut Fields, model: &str) -> Result<Self, ApiError> {
        check_model(&fields.required::<String>("model", "the name of the model")?, model)?;
        for unsupported in ["frequency_penalty", "presence_penalty", "logit_bias"] {
            fields.neutral(unsupported, is_nothing)?;
        }
        let stream = fields.flag("stream")?;
        let options = stream.then(|| fields.take("stream_options", "an object")).transpose()?;
        let include_usage = options.flatten().is_some_and(|o: StreamOptions| o.include_usage);
        let most = 1 << 32;
        let max_tokens = fields.integer("max_tokens", 1..=most)?;
        let max_tokens = fields.integer("max_completion_tokens", 1..=most)?.or(max_tokens);
        let seed = fields.take("seed", "an integer")?;
        // A seed is any 64 bits.
        let seed = seed.map_or_else(rand::random, |seed: i64| seed.cast_unsigned());
        let top_p = fields.real("top_p", 0.0..=1.0)?.unwrap_or(1.0);
        if top_p == 0.0 {
            return Err(ApiError::field("top_p", "top_p is 0; for greedy use temperature 0"));
        }
        Ok(Self {
            n: fields.integer("n", 1..=MAX_CHOICES as u64)?.unwrap_or(1) as usize,
            max_tokens: max_tokens.map(|tokens| tokens as usize),
            sampling: Sampling {
                temperature: fields.real("temperature", 0.0..=2.0)?.unwrap_or(1.0) as f32,
                top_k: fields.integer("top_k", 0..=most)?.unwrap_or(0) as usize,
                top_p: top_p as f32,
                seed,
            },
            stop: stops(fields)?,
            stream,
            include_usage,
        })
    }

    /// How the tokens of answer `index` are drawn: answers to one prompt must not be the same.
    pub fn sampling(&self, index: usize) -> Sampling {
        let seed = self.sampling.seed.wrapping_add(index as u64);
        Sampling { seed, ..self.sampling.clone() }
    }

    /// Log probabilities of other tokens than the chosen ones are not known; greedily, the chosen
    /// one is the most likely.
    pub fn check_alternatives(&self, name: &str, count: u64) -> Result<(), ApiError> {
        if count == 0 || (count == 1 && self.sampling.temperature == 0.0) {
            return Ok(());
        }
        Err(ApiError::field(
            name,
            format!(
                "{name} is {count}; this server knows the chosen tokens only: send 0, or 1 with temperature 0"
            ),
        ))
    }
}

/// Refuses a model that is not served.
pub fn check_model(asked: &str, served: &str) -> Result<(), ApiError> {
    if asked == served {
        return Ok(());
    }
    let (asked, served) = (shown(asked), shown(served));
    let message = format!("the model {asked} does not exist; ask for {served}");
    Err(ApiError {
        param: Some("model".into()),
        code: Some("model_not_found"),
        ..ApiError::new(StatusCode::NOT_FOUND, message)
    })
}

fn stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let what = format!("a string or a list of up to {MAX_STOPS}");
    let stops = match fields.take("stop", &what)? {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Several(stops)) => stops,
    };
    if stops.len() > MAX_STOPS || stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", format!("stop must be {what}, none of them empty")));
    }
    Ok(stops)
}

/// Whether a value is this text.
pub fn is_text(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |value| value == wanted
}
