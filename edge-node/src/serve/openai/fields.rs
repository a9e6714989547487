//! Fields of a request body, taken one after the other.
//!
//! Each field is named in its errors, and what is left at the end is refused: a parameter that is
//! not understood must not be ignored, since the answer would not be what was asked for.

use std::ops::RangeInclusive;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::serve::request::{clip, shown};

/// Fields without influence on the answer.
const IGNORED: [&str; 10] = [
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "user",
];

/// What is left of the body.
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let bad = |why: String| ApiError::new(StatusCode::BAD_REQUEST, why);
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(bad("the body is no JSON object".into())),
            Err(e) => Err(bad(format!("the JSON of the request: {}", clip(&e.to_string())))),
        }
    }

    /// The value of a field; null is the same as no field.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// A field of a type; `what` says what it should be.
    pub fn take<T: DeserializeOwned>(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match serde_json::from_value(value) {
            Ok(value) => Ok(Some(value)),
            Err(e) => {
                let why = clip(&e.to_string());
                Err(ApiError::field(name, format!("{name} must be {what}: {why}")))
            }
        }
    }

    pub fn required<T: DeserializeOwned>(&mut self, name: &str, what: &str) -> Result<T, ApiError> {
        self.take(name, what)?
            .ok_or_else(|| ApiError::field(name, format!("{name} is missing; send {what}")))
    }

    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.take(name, "true or false")?.unwrap_or(false))
    }

    pub fn integer(
        &mut self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let what = format!("an integer from {} to {}", range.start(), range.end());
        self.number(name, &what, |value| range.contains(value))
    }

    pub fn real(
        &mut self,
        name: &str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let what = format!("a number from {} to {}", range.start(), range.end());
        self.number(name, &what, |value| range.contains(value))
    }

    fn number<T: DeserializeOwned + std::fmt::Display>(
        &mut self,
        name: &str,
        what: &str,
        good: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, ApiError> {
        match self.take(name, what)? {
            Some(value) if !good(&value) => {
                Err(ApiError::field(name, format!("{name} is {value}; it must be {what}")))
            }
            value => Ok(value),
        }
    }

    /// Refuses a field that would change the answer in a way that is not supported, unless it has
    /// the value that asks for nothing.
    pub fn neutral(&mut self, name: &str, idle: impl Fn(&Value) -> bool) -> Result<(), ApiError> {
        match self.value(name) {
            Some(value) if !idle(&value) => {
                Err(ApiError::field(name, format!("{name} is not supported; leave it out")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), ApiError> {
        let unknown = self.0.keys().find(|name| !IGNORED.contains(&name.as_str()));
        match unknown {
            Some(name) => Err(ApiError::field(
                &clip(name),
                format!("the parameter {} is not supported; leave it out", shown(name)),
            )),
            None => Ok(()),
        }
    }
}

/// Whether a value asks for nothing: 0, false, or nothing inside.
pub fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}
