//! The endpoints that OpenAI's clients speak: `/v1/models`, `/v1/completions` and
//! `/v1/chat/completions`, whole or as server-sent events.
//!
//! A body is read field by field (`fields`, `parameters`) by its endpoint (`completions`, `chat`),
//! which begins the answers (`choices`) and says how they are written (`answer`). What would change
//! an answer and is not supported is refused, never ignored. Failures have OpenAI's shape (`error`).

mod answer;
mod chat;
mod choices;
mod completions;
mod error;
mod fields;
mod parameters;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{Method, StatusCode, Uri},
    response::Response,
    routing::{get, post},
};
use serde_json::{Value, json};

use self::error::ApiError;
use super::{Generator, request::shown, text::TextService};

/// Longest body: far more text than any model has positions for.
const MAX_BODY_BYTES: usize = 4 << 20;

struct Shared<G> {
    service: Arc<TextService<G>>,
    /// When the server began, s since 1970; the models' `created`.
    began: u64,
}

/// The routes under `/v1`.
pub fn openai_router<G: Generator>(service: Arc<TextService<G>>) -> Router {
    Router::new()
        .route("/v1/models", get(models::<G>))
        .route("/v1/models/{*name}", get(model::<G>))
        .route("/v1/completions", post(completions::<G>))
        .route("/v1/chat/completions", post(chat::<G>))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(Shared { service, began: answer::unix_seconds() }))
}

async fn models<G: Generator>(State(shared): State<Arc<Shared<G>>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [describe(&shared)] }))
}

async fn model<G: Generator>(
    State(shared): State<Arc<Shared<G>>>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    parameters::check_model(&name, shared.service.model())?;
    Ok(Json(describe(&shared)))
}

fn describe<G: Generator>(shared: &Shared<G>) -> Value {
    let name = shared.service.model();
    json!({ "id": name, "object": "model", "created": shared.began, "owned_by": "cleave" })
}

async fn completions<G: Generator>(
    State(shared): State<Arc<Shared<G>>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    completions::completions(&shared.service, &arrived(body)?).await
}

async fn chat<G: Generator>(
    State(shared): State<Arc<Shared<G>>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    chat::chat(&shared.service, &arrived(body)?).await
}

fn arrived(body: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    body.map_err(|e| match e.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::new(status, format!("the body is over {MAX_BODY_BYTES} bytes"))
        }
        _ => ApiError::new(
            StatusCode::BAD_REQUEST,
            format!("the body did not arrive: {}", e.body_text()),
        ),
    })
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let (method, path) = (shown(method.as_str()), shown(uri.path()));
    let message = format!("{path} does not take {method}; see the Allow header");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests;
