//! Failures in the shape that OpenAI's clients read: `{"error": {message, type, param, code}}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::serve::InferError;

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

impl ApiError {
    /// A field of the request is wrong.
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { param: Some(name.to_string()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// The body of the error, which is also an event of a stream that breaks off.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "service_unavailable_error",
            504 => "timeout_error",
            _ => "server_error",
        };
        let Self { message, param, code, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl From<InferError> for ApiError {
    fn from(error: InferError) -> Self {
        let code = match error {
            InferError::TooLong(_) => Some("context_length_exceeded"),
            InferError::UnknownModel(_) => Some("model_not_found"),
            InferError::Busy(_) => Some("rate_limit_exceeded"),
            _ => None,
        };
        Self { code, ..Self::new(error.http_status(), error.to_string()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
