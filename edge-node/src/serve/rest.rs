//! The Open Inference Protocol v2 over HTTP: routes and what each of them answers.
//!
//! Every response that is not a success has the protocol's `{"error": ...}` body, also those that
//! the HTTP library would answer with plain text by itself.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request, State},
    http::{HeaderMap, Method, StatusCode, Uri, header, request::Parts},
    response::Response,
    routing::{get, post},
};
use cleave_shared::model::Port;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    InferError, ModelInfo, Predictor, SERVER_EXTENSIONS, SERVER_NAME, SERVER_VERSION,
    error::http_error,
    request::{TEXT, TEXT_DTYPE, check_model, metadata_shape, shown},
    rest_body::{self, HEADER_LENGTH},
};

struct Shared<P> {
    predictor: Arc<P>,
    max_body_bytes: usize,
}

/// The routes of the protocol. A body longer than `max_body_bytes` is refused with 413.
pub fn rest_router<P: Predictor>(predictor: Arc<P>, max_body_bytes: usize) -> Router {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready::<P>))
        .route("/v2/models/{name}", get(model::<P>))
        .route("/v2/models/{name}/ready", get(model_ready::<P>))
        .route("/v2/models/{name}/infer", post(infer::<P>))
        .route("/v2/models/{name}/versions/{version}", get(model::<P>))
        .route("/v2/models/{name}/versions/{version}/ready", get(model_ready::<P>))
        .route("/v2/models/{name}/versions/{version}/infer", post(infer::<P>))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .with_state(Arc::new(Shared { predictor, max_body_bytes }))
}

/// The model and the version that a path names; no version means the one served.
#[derive(Deserialize)]
pub(super) struct Target {
    pub name: String,
    #[serde(default)]
    pub version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = InferError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, InferError> {
        match Path::<Target>::from_request_parts(parts, state).await {
            Ok(Path(target)) => Ok(target),
            Err(e) => {
                Err(InferError::BadInput(format!("the path of the request: {}", e.body_text())))
            }
        }
    }
}

async fn server() -> Json<Value> {
    Json(json!({
        "name": SERVER_NAME, "version": SERVER_VERSION, "extensions": SERVER_EXTENSIONS
    }))
}

async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

async fn ready<P: Predictor>(
    State(shared): State<Arc<Shared<P>>>,
) -> Result<Json<Value>, InferError> {
    require_ready(&*shared.predictor)?;
    Ok(Json(json!({ "ready": true })))
}

async fn model_ready<P: Predictor>(
    State(shared): State<Arc<Shared<P>>>,
    target: Target,
) -> Result<Json<Value>, InferError> {
    let info = shared.predictor.model();
    check_model(&info, &target.name, &target.version)?;
    require_ready(&*shared.predictor)?;
    Ok(Json(json!({ "name": info.name, "ready": true })))
}

/// A probe only reads the status code, so that "not ready" has to be one.
fn require_ready<P: Predictor>(predictor: &P) -> Result<(), InferError> {
    if predictor.ready() {
        return Ok(());
    }
    let name = shown(&predictor.model().name);
    Err(InferError::Unavailable(format!("model {name} is not ready; try again later")))
}

async fn model<P: Predictor>(
    State(shared): State<Arc<Shared<P>>>,
    target: Target,
) -> Result<Json<Value>, InferError> {
    let info = shared.predictor.model();
    check_model(&info, &target.name, &target.version)?;
    Ok(Json(metadata(&info)))
}

fn metadata(info: &ModelInfo) -> Value {
    let tensor = |port: &Port| {
        let (name, datatype) = (&port.name, port.dtype.name());
        json!({ "name": name, "datatype": datatype, "shape": metadata_shape(port) })
    };
    let text = json!({ "name": TEXT, "datatype": TEXT_DTYPE, "shape": [-1] });
    let inputs = info.inputs.iter().map(tensor).chain(info.takes_text.then_some(text));
    json!({
        "name": info.name,
        "versions": [info.version],
        "platform": info.platform,
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": info.outputs.iter().map(tensor).collect::<Vec<_>>(),
    })
}

async fn infer<P: Predictor>(
    State(shared): State<Arc<Shared<P>>>,
    target: Target,
    request: Request,
) -> Result<Response, InferError> {
    let info = shared.predictor.model();
    // Before the body is read: nobody should upload megabytes to a model that is not here.
    check_model(&info, &target.name, &target.version)?;
    check_headers(request.headers(), shared.max_body_bytes)?;
    let json_length = request.headers().get(&HEADER_LENGTH).cloned();
    let body = read_body(request, shared.max_body_bytes).await?;
    let parsed = rest_body::parse(&info, body, json_length.as_ref())?;
    let prediction = shared.predictor.predict(parsed.request).await?;
    rest_body::respond(&info, parsed.id, &prediction, &parsed.outputs)
}

/// Refuses what the headers alone show to be unacceptable.
fn check_headers(headers: &HeaderMap, limit: usize) -> Result<(), InferError> {
    if let Some(coding) = headers.get(header::CONTENT_ENCODING).filter(|c| *c != "identity") {
        let coding = shown(&String::from_utf8_lossy(coding.as_bytes()));
        return Err(InferError::BadInput(format!(
            "Content-Encoding {coding} is not supported; send the body uncompressed"
        )));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok());
    match length.and_then(|l| l.parse::<u64>().ok()) {
        Some(length) if length > limit as u64 => Err(too_large(limit)),
        _ => Ok(()),
    }
}

async fn read_body(request: Request, limit: usize) -> Result<Bytes, InferError> {
    Bytes::from_request(request, &()).await.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(limit),
        _ => InferError::BadInput(format!("the body did not arrive: {}", e.body_text())),
    })
}

fn too_large(limit: usize) -> InferError {
    InferError::TooLarge(format!("the body is over {limit} bytes; send a smaller batch"))
}

async fn unknown_path(uri: Uri) -> Response {
    let path = shown(uri.path());
    http_error(StatusCode::NOT_FOUND, &format!("no such path: {path}; the API is under /v2"))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let (method, path) = (shown(method.as_str()), shown(uri.path()));
    let message = format!("{path} does not take {method}; see the Allow header");
    http_error(StatusCode::METHOD_NOT_ALLOWED, &message)
}

#[cfg(test)]
#[path = "rest_tests.rs"]
mod tests;
