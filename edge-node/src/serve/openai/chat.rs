//! `POST /v1/chat/completions`: the assistant speaks next.
//!
//! The model's own chat template turns the messages into a prompt. Only text goes in and comes out:
//! tools, images and sound are refused.

use axum::response::Response;
use cleave_shared::text::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{self, Form},
    choices::Choices,
    completions::token_text,
    error::ApiError,
    fields::{Fields, is_nothing},
    parameters::{Parameters, is_text},
};
use crate::serve::{
    Generator,
    request::shown,
    text::{Message, Piece, TextService, Token, reason},
};

#[derive(Deserialize)]
struct Stated {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Value>,
    function_call: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// Answers one request body.
pub async fn chat<G: Generator>(
    service: &TextService<G>,
    body: &[u8],
) -> Result<Response, ApiError> {
    let mut fields = Fields::read(body)?;
    let parameters = Parameters::take(&mut fields, service.model())?;
    service.check_generates()?;
    let stated: Vec<Stated> = fields.required("messages", "a list of messages")?;
    let logprobs = fields.flag("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=20)?.unwrap_or(0);
    if top > 0 && !logprobs {
        return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true"));
    }
    parameters.check_alternatives("top_logprobs", top)?;
    refuse_more_than_text(&mut fields)?;
    fields.finish()?;

    let tokenizer = service.tokenizer()?.clone();
    let prompt = service.encode_chat(messages(stated)?).await?;
    let choices = Choices::begin(service, &[prompt], &parameters).await?;
    let form = Chat { tokenizer, logprobs: logprobs.then_some(top) };
    if parameters.stream {
        let usage = parameters.include_usage;
        Ok(answer::streamed(form, service.model(), choices, usage))
    } else {
        answer::complete(form, service.model(), choices).await
    }
}

fn refuse_more_than_text(fields: &mut Fields) -> Result<(), ApiError> {
    for name in ["tools", "functions", "audio", "prediction", "web_search_options"] {
        fields.neutral(name, is_nothing)?;
    }
    fields.neutral("tool_choice", |choice| choice == "none" || choice == "auto")?;
    fields.neutral("function_call", |choice| choice == "none" || choice == "auto")?;
    fields.neutral("response_format", |format| format["type"] == "text")?;
    fields.neutral("modalities", |kinds| *kinds == json!(["text"]))?;
    fields.neutral("reasoning_effort", is_text("none"))
}

/// The messages as templates know them.
fn messages(stated: Vec<Stated>) -> Result<Vec<Message>, ApiError> {
    let wrong = |i: usize, name: &str, message: String| {
        ApiError::field(&format!("messages[{i}].{name}"), format!("messages[{i}]: {message}"))
    };
    if stated.is_empty() {
        return Err(ApiError::field("messages", "messages is empty; send at least one"));
    }
    let message = |(i, stated): (usize, Stated)| {
        let role = match stated.role.as_str() {
            // The newer name, which templates do not know.
            "developer" => "system",
            role @ ("system" | "user" | "assistant") => role,
            other => {
                let known = "system, developer, user or assistant";
                return Err(wrong(i, "role", format!("the role {} is not {known}", shown(other))));
            }
        };
        let calls = [stated.tool_calls, stated.function_call];
        if calls.iter().flatten().any(|call| !is_nothing(call)) {
            return Err(wrong(i, "tool_calls", "tools are not supported".into()));
        }
        let content = match stated.content {
            None => return Err(wrong(i, "content", "content is missing".into())),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => joined(parts)
                .map_err(|kind| wrong(i, "content", format!("{} is no text", shown(&kind))))?,
        };
        Ok(Message { role: role.into(), content })
    };
    stated.into_iter().enumerate().map(message).collect()
}

/// Text parts one after the other; the kind of the first other one.
fn joined(parts: Vec<Part>) -> Result<String, String> {
    let text = |part: Part| match part.text {
        Some(text) if part.kind == "text" => Ok(text),
        _ => Err(part.kind),
    };
    parts.into_iter().map(text).collect()
}

/// Choices of `chat.completion` objects.
struct Chat {
    tokenizer: Tokenizer,
    /// How many likely tokens go beside each.
    logprobs: Option<u64>,
}

impl Chat {
    fn logprobs(&self, tokens: &[Token]) -> Option<Value> {
        let top = self.logprobs?;
        let one = |token: &Token| {
            let text = token_text(&self.tokenizer, token.id);
            // Half a character is shown as a replacement: its bytes are not known.
            let bytes = (!text.contains('\u{FFFD}')).then(|| text.as_bytes().to_vec());
            json!({ "token": text, "logprob": token.logprob, "bytes": bytes })
        };
        let content: Vec<Value> = tokens
            .iter()
            .map(|token| {
                let mut entry = one(token);
                let top: Vec<Value> = (top > 0).then(|| one(token)).into_iter().collect();
                entry["top_logprobs"] = top.into();
                entry
            })
            .collect();
        Some(json!({ "content": content, "refusal": null }))
    }

    fn delta(&self, index: usize, delta: Value, piece: &Piece) -> Value {
        let logprobs = self.logprobs(&piece.tokens).filter(|_| !piece.tokens.is_empty());
        json!({
            "index": index, "delta": delta, "logprobs": logprobs,
            "finish_reason": piece.finish.map(reason)
        })
    }
}

impl Form for Chat {
    const ID: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";

    fn opening(&mut self, index: usize) -> Option<Value> {
        Some(self.delta(index, json!({ "role": "assistant", "content": "" }), &Piece::default()))
    }

    fn chunk(&mut self, index: usize, piece: Piece) -> Value {
        let delta =
            if piece.text.is_empty() { json!({}) } else { json!({ "content": piece.text }) };
        self.delta(index, delta, &piece)
    }

    fn whole(&mut self, index: usize, answer: Piece) -> Value {
        json!({
            "index": index,
            "message": { "role": "assistant", "content": answer.text, "refusal": null },
            "logprobs": self.logprobs(&answer.tokens),
            "finish_reason": answer.finish.map(reason)
        })
    }
}
