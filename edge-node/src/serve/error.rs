//! Why an inference request failed, and what that is called in gRPC and in HTTP.
//!
//! Both transports translate the same enum, so that a failure means the same to both kinds of
//! client. Messages reach the client: they name what is wrong and what to send instead.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cleave_shared::security;
use tonic::{Code, Status};

/// A failed request; the text is one line, meant for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The request is wrong and will be wrong again.
    #[error("{0}")]
    BadInput(String),
    /// Prompt and answer have more tokens than the model has positions.
    #[error("{0}")]
    TooLong(String),
    /// The model or the version is not the one served.
    #[error("{0}")]
    UnknownModel(String),
    /// The request is bigger than the server accepts.
    #[error("{0}")]
    TooLarge(String),
    /// Too much is running already; the same request may succeed later.
    #[error("{0}")]
    Busy(String),
    /// Something that the prediction needs is not there now, the cloud node for example.
    #[error("{0}")]
    Unavailable(String),
    /// The prediction took longer than it was allowed to.
    #[error("{0}")]
    Deadline(String),
    /// The server is at fault.
    #[error("{0}")]
    Internal(String),
}

impl InferError {
    pub fn grpc_code(&self) -> Code {
        match self {
            Self::BadInput(_) | Self::TooLong(_) => Code::InvalidArgument,
            Self::UnknownModel(_) => Code::NotFound,
            Self::TooLarge(_) | Self::Busy(_) => Code::ResourceExhausted,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Deadline(_) => Code::DeadlineExceeded,
            Self::Internal(_) => Code::Internal,
        }
    }

    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::BadInput(_) | Self::TooLong(_) => StatusCode::BAD_REQUEST,
            Self::UnknownModel(_) => StatusCode::NOT_FOUND,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<InferError> for Status {
    fn from(error: InferError) -> Self {
        match error {
            InferError::Busy(text) => security::no_room(text),
            _ => Status::new(error.grpc_code(), error.to_string()),
        }
    }
}

impl IntoResponse for InferError {
    fn into_response(self) -> Response {
        http_error(self.http_status(), &self.to_string())
    }
}

/// The protocol's error body, also for failures that never reach inference.
pub fn http_error(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> [(InferError, Code, u16); 8] {
        let text = || "why".to_string();
        [
            (InferError::BadInput(text()), Code::InvalidArgument, 400),
            (InferError::TooLong(text()), Code::InvalidArgument, 400),
            (InferError::UnknownModel(text()), Code::NotFound, 404),
            (InferError::TooLarge(text()), Code::ResourceExhausted, 413),
            (InferError::Busy(text()), Code::ResourceExhausted, 429),
            (InferError::Unavailable(text()), Code::Unavailable, 503),
            (InferError::Deadline(text()), Code::DeadlineExceeded, 504),
            (InferError::Internal(text()), Code::Internal, 500),
        ]
    }

    #[test]
    fn every_failure_has_its_code_and_status() {
        for (error, code, http) in table() {
            assert_eq!(error.http_status().as_u16(), http);
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, "why"));
        }
    }

    #[test]
    fn only_who_found_no_room_is_told_when_to_come_back() {
        for (error, ..) in table() {
            let wanted = matches!(error, InferError::Busy(_)).then_some("1000");
            let status = Status::from(error.clone());
            let told =
                status.metadata().get("grpc-retry-pushback-ms").map(|ms| ms.to_str().unwrap());
            assert_eq!(told, wanted, "{error:?}");
        }
    }
}
