//! The routes of these calls.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    super::{
        InferError, Predictor, Refused,
        request::{check_model, clip},
        rest::{Target, wrong_method},
    },
    Control, Durations, STATISTICS_VERSION, check_load_parameters, config, settings, state,
};
use crate::serve::http_error;

/// Largest body, bytes: a few settings.
const MAX_BODY: usize = 16 << 10;

struct Shared<P> {
    predictor: Arc<P>,
    control: Arc<dyn Control>,
}

type Held<P> = State<Arc<Shared<P>>>;
type Answer = Result<Json<Value>, Failed>;

/// Configuration, statistics, repository, trace and log settings.
pub fn control_router<P: Predictor>(predictor: Arc<P>, control: Arc<dyn Control>) -> Router {
    Router::new()
        .route("/v2/models/{name}/config", get(config::<P>))
        .route("/v2/models/{name}/versions/{version}/config", get(config::<P>))
        .route("/v2/models/stats", get(all_statistics::<P>))
        .route("/v2/models/{name}/stats", get(statistics::<P>))
        .route("/v2/models/{name}/versions/{version}/stats", get(statistics::<P>))
        .route("/v2/repository/index", post(index::<P>))
        .route("/v2/repository/models/{name}/load", post(load::<P>))
        .route("/v2/repository/models/{name}/unload", post(unload::<P>))
        .route("/v2/trace/setting", get(trace_settings).post(set_trace::<P>))
        .route("/v2/models/{name}/trace/setting", get(model_trace::<P>).post(set_model_trace::<P>))
        .route("/v2/logging", get(log_settings).post(set_log::<P>))
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Shared { predictor, control }))
}

/// Why there is no answer.
enum Failed {
    Wrong(InferError),
    Refused(Refused),
}

impl From<InferError> for Failed {
    fn from(error: InferError) -> Self {
        Self::Wrong(error)
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Self::Wrong(error) => error.into_response(),
            Self::Refused(refused) => refused.into_response(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let scheme = [("www-authenticate", "Bearer")];
        let answer = http_error(self.status, self.why);
        match self.status {
            axum::http::StatusCode::UNAUTHORIZED => (scheme, answer).into_response(),
            _ => answer,
        }
    }
}

impl<P: Predictor> Shared<P> {
    fn check(&self, target: &Target) -> Result<(), InferError> {
        check_model(&self.predictor.model(), &target.name, &target.version)
    }

    fn may_change(&self, headers: &HeaderMap) -> Result<(), Refused> {
        self.control.may_change(headers)
    }

    fn statistics(&self) -> Json<Value> {
        let (info, found) = (self.predictor.model(), self.control.statistics());
        let mut stats = json!(found.inference_stats);
        // Nothing is cached; clients of Triton read these without asking whether they are there.
        for part in ["cache_hit", "cache_miss"] {
            stats[part] = json!(Durations::default());
        }
        let model = json!({
            "name": info.name,
            "version": STATISTICS_VERSION,
            "last_inference": found.last_inference,
            "inference_count": found.inference_count,
            "execution_count": found.execution_count,
            "inference_stats": stats,
            "batch_stats": [],
        });
        Json(json!({ "model_stats": [model] }))
    }
}

async fn config<P: Predictor>(State(shared): Held<P>, target: Target) -> Answer {
    shared.check(&target)?;
    Ok(Json(config::json(&shared.predictor.model())))
}

async fn all_statistics<P: Predictor>(State(shared): Held<P>) -> Json<Value> {
    shared.statistics()
}

async fn statistics<P: Predictor>(State(shared): Held<P>, target: Target) -> Answer {
    shared.check(&target)?;
    Ok(shared.statistics())
}

#[derive(Deserialize, Default)]
struct Index {
    /// Only those that are ready.
    #[serde(default)]
    ready: bool,
}

async fn index<P: Predictor>(State(shared): Held<P>, body: Bytes) -> Answer {
    let Index { ready: only } = read(&body)?;
    let (info, ready) = (shared.predictor.model(), shared.predictor.ready());
    let (state, reason) = state(ready);
    let model = json!({
        "name": info.name, "version": info.version, "state": state, "reason": reason
    });
    Ok(Json(if ready || !only { json!([model]) } else { json!([]) }))
}

#[derive(Deserialize, Default)]
struct Load {
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

async fn load<P: Predictor>(
    State(shared): Held<P>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    shared.may_change(&headers)?;
    shared.check(&target)?;
    let Load { parameters } = read(&body)?;
    let keys = parameters.keys().map(String::as_str);
    check_load_parameters(keys)?;
    shared.control.load().await?;
    Ok(Json(json!({})))
}

async fn unload<P: Predictor>(
    State(shared): Held<P>,
    target: Target,
    headers: HeaderMap,
) -> Answer {
    shared.may_change(&headers)?;
    shared.check(&target)?;
    shared.control.unload();
    Ok(Json(json!({})))
}

/// One value or a list of them; null is none.
#[derive(Default)]
struct Values(Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            None(()),
            Number(u64),
            One(String),
            List(Vec<String>),
        }
        Ok(Self(match Form::deserialize(from)? {
            Form::None(()) => Vec::new(),
            Form::Number(number) => vec![number.to_string()],
            Form::One(text) => vec![text],
            Form::List(texts) => texts,
        }))
    }
}

async fn trace_settings() -> Json<Value> {
    // A list only where Triton has one.
    let shown = settings::trace_settings().into_iter().map(|(name, values)| {
        let value = if name == "trace_level" { json!(values) } else { json!(values[0]) };
        (name.to_string(), value)
    });
    Json(Value::Object(shown.collect()))
}

async fn model_trace<P: Predictor>(State(shared): Held<P>, target: Target) -> Answer {
    shared.check(&target)?;
    Ok(trace_settings().await)
}

async fn set_trace<P: Predictor>(
    State(shared): Held<P>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    shared.may_change(&headers)?;
    let changes: BTreeMap<String, Values> = read(&body)?;
    let changes = changes.into_iter().map(|(name, Values(values))| (name, values)).collect();
    settings::set_trace(&changes)?;
    Ok(trace_settings().await)
}

async fn set_model_trace<P: Predictor>(
    State(shared): Held<P>,
    target: Target,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    shared.check(&target)?;
    set_trace(State(shared), headers, body).await
}

async fn log_settings() -> Json<Value> {
    Json(json!(settings::log_settings()))
}

async fn set_log<P: Predictor>(State(shared): Held<P>, headers: HeaderMap, body: Bytes) -> Answer {
    shared.may_change(&headers)?;
    settings::set_log(&read(&body)?)?;
    Ok(log_settings().await)
}

/// A body; nothing at all is the default.
fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, InferError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|e| InferError::BadInput(format!("the body: {}", clip(&e.to_string()))))
}
