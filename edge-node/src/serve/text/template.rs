//! Chat templates: how a model was taught to read a conversation, as a Jinja template.
//!
//! Models come with the template that they were trained with. It is written for Hugging Face's
//! `apply_chat_template`, which this does again: Jinja2's syntax with Python's methods, trimmed
//! blocks, `raise_exception`, `strftime_now`, and `tojson` without HTML escapes.

use std::collections::BTreeMap;

use minijinja::{
    Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Kwargs,
};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

const NAME: &str = "chat";

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// A compiled template and the special tokens that it may write.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// `tokens` are variables of the template, `bos_token` for example. The error is one line.
    pub fn new(source: String, tokens: BTreeMap<String, String>) -> Result<Self, String> {
        let mut environment = Environment::new();
        let blocks = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(blocks.map_err(|e| one_line(&e))?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment
            .add_template_owned(NAME, without_generation_tags(&source))
            .map_err(|e| one_line(&e))?;
        Ok(Self { environment, tokens })
    }

    /// The prompt after which the assistant speaks. The error is one line, for the client.
    pub fn render(&self, messages: &[Message]) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|e| one_line(&e))?;
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()));
        let tokens = Value::from_pairs(tokens);
        let nothing = Value::from(());
        let message =
            |m: &Message| context! { role => m.role.as_str(), content => m.content.as_str() };
        let variables = context! {
            messages => messages.iter().map(message).collect::<Vec<Value>>(),
            add_generation_prompt => true,
            tools => nothing.clone(),
            documents => nothing,
            ..tokens
        };
        template.render(variables).map_err(|e| {
            format!("the model's chat template refuses the messages: {}", one_line(&e))
        })
    }
}

/// For templates that refuse a conversation, two user messages in a row for example.
fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The local time, in C's format.
fn strftime_now(format: String) -> Result<String, Error> {
    jiff::fmt::strtime::format(&format, &jiff::ZonedDateTime::now())
        .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
}

/// JSON as Python's `json.dumps` writes it.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut json = Vec::new();
    let written = match indent {
        Some(width) => {
            let blanks = " ".repeat(width);
            let formatter = PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Spaced)),
    };
    let bad = |problem: String| Error::new(ErrorKind::BadSerialization, problem);
    written.map_err(|e| bad(e.to_string()))?;
    String::from_utf8(json).map(Value::from).map_err(|e| bad(e.to_string()))
}

/// Python's separators: a blank after each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `{% generation %}` marks what the assistant said, for training, and writes nothing. It is Hugging
/// Face's own tag: a condition that always holds does the same.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[2..end];
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        let same = match word {
            "generation" => inner.replace(word, " if true "),
            "endgeneration" => inner.replace(word, " endif "),
            _ => inner.to_string(),
        };
        out.push_str("{%");
        out.push_str(&same);
        out.push_str("%}");
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}

fn one_line(error: &Error) -> String {
    let text = match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_string(),
        _ => error.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
