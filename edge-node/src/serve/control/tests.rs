//! The REST routes without a socket, and the messages by themselves.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, header},
};
use serde_json::{Value, json};
use tonic::Code;
use tower::ServiceExt;

use super::*;
use crate::{
    proto::inference::{
        LogSettingsRequest, ModelConfigRequest, ModelStatisticsRequest, RepositoryIndexRequest,
        RepositoryModelLoadRequest, RepositoryModelUnloadRequest, TraceSettingRequest,
        trace_setting_request::SettingValue,
    },
    serve::{
        Gated, Predictor,
        fake::{self, Fake, FakeControl, TOKEN},
    },
};

struct Edge {
    predictor: Arc<Gated<Fake>>,
    control: Arc<FakeControl>,
    router: Router,
}

fn edge(failure: Option<InferError>) -> Edge {
    let control = Arc::new(FakeControl { failure, ..FakeControl::default() });
    let predictor = Arc::new(Gated::new(Arc::new(Fake::default()), control.gate.clone()));
    let router = control_router(predictor.clone(), control.clone());
    Edge { predictor, control, router }
}

impl Edge {
    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let mut request = Request::post(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn configuration_and_statistics_are_for_all() {
    let edge = edge(None);
    let wanted = json!({
        "name": "toy", "platform": "cleave", "backend": "cleave", "max_batch_size": 4,
        "input": [{"name": "input", "data_type": "TYPE_FP32", "dims": [2, 3], "optional": false}],
        "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": [2]}],
    });
    for path in ["/v2/models/toy/config", "/v2/models/toy/versions/3/config"] {
        assert_eq!(edge.get(path).await, (200, wanted.clone()));
    }
    for path in ["/v2/models/stats", "/v2/models/toy/stats", "/v2/models/toy/versions/3/stats"] {
        let (status, found) = edge.get(path).await;
        let model = &found["model_stats"][0];
        assert_eq!((status, &model["name"], &model["version"]), (200, &"toy".into(), &"1".into()));
        assert_eq!(model["inference_count"], 6);
        assert_eq!(model["inference_stats"]["success"], json!({"count": 2, "ns": 30}));
        assert_eq!(model["inference_stats"]["queue"], json!({"count": 0, "ns": 0}));
        assert_eq!(model["inference_stats"]["cache_miss"], json!({"count": 0, "ns": 0}));
    }
    for path in
        ["/v2/models/other/config", "/v2/models/other/stats", "/v2/models/other/trace/setting"]
    {
        let (status, body) = edge.get(path).await;
        assert_eq!(status, 404, "{path}");
        assert!(body["error"].as_str().unwrap().contains("other"));
    }
}

#[tokio::test]
async fn the_token_unloads_and_loads() {
    let edge = edge(None);
    let (load, unload) = ("/v2/repository/models/toy/load", "/v2/repository/models/toy/unload");
    let state = async || edge.post("/v2/repository/index", None, "").await.1[0]["state"].clone();
    assert_eq!(state().await, "READY");
    assert_eq!(edge.post(unload, None, "").await.0, 401);
    assert_eq!(edge.post(unload, Some("Bearer x"), "").await.0, 403);
    assert!(edge.predictor.ready());
    assert_eq!(edge.post(unload, Some(TOKEN), "{\"parameters\": {}}").await, (200, json!({})));
    assert!(!edge.predictor.ready());
    assert_eq!(state().await, "UNAVAILABLE");
    assert_eq!(edge.post("/v2/repository/index", None, "{\"ready\": true}").await.1, json!([]));
    let refused = edge.predictor.predict(crate::serve::Query::Texts(vec![]).into()).await;
    assert!(matches!(refused, Err(InferError::Unavailable(why)) if why.contains("unloaded")));
    let (status, body) =
        edge.post(load, Some(TOKEN), "{\"parameters\": {\"config\": \"{}\"}}").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("\"config\" cannot be given"), "{body}");
    assert_eq!(edge.post(load, Some(TOKEN), "").await, (200, json!({})));
    assert!(edge.predictor.ready());
    let other = "/v2/repository/models/other/load";
    assert_eq!(edge.post(other, Some(TOKEN), "").await.0, 404);
}

#[tokio::test]
async fn a_load_that_fails_says_why_and_changes_nothing() {
    let edge = edge(Some(InferError::Unavailable("no weights".into())));
    edge.control.unload();
    let (status, body) = edge.post("/v2/repository/models/toy/load", Some(TOKEN), "").await;
    assert_eq!((status, &body["error"]), (503, &"no weights".into()));
    assert!(!edge.predictor.ready());
}

#[tokio::test]
async fn settings_are_shown_to_all_and_changed_with_the_token() {
    let edge = edge(None);
    for path in ["/v2/trace/setting", "/v2/models/toy/trace/setting"] {
        let (status, found) = edge.get(path).await;
        assert_eq!((status, &found["trace_level"]), (200, &json!(["OFF"])));
        assert_eq!(found["trace_mode"], "opentelemetry");
        let on = "{\"trace_level\": [\"TIMESTAMPS\"], \"trace_rate\": null}";
        assert_eq!(edge.post(path, None, on).await.0, 401);
        let (status, body) = edge.post(path, Some(TOKEN), on).await;
        assert_eq!(status, 400);
        assert!(body["error"].as_str().unwrap().contains("trace.otlp"), "{body}");
    }
    let (status, found) = edge.get("/v2/logging").await;
    assert_eq!((status, &found["log_format"]), (200, &"default".into()));
    assert_eq!(edge.post("/v2/logging", None, "{\"log_info\": false}").await.0, 401);
    let (status, body) = edge.post("/v2/logging", Some(TOKEN), "{\"log_colour\": true}").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("log_colour"), "{body}");
    let (status, body) = edge.post("/v2/logging", Some(TOKEN), "[").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().starts_with("the body: "), "{body}");
}

#[tokio::test]
async fn messages_say_the_same() {
    let Edge { predictor, control, .. } = edge(None);
    let info = fake::info();
    let asked = ModelConfigRequest { name: "toy".into(), version: String::new() };
    let config = grpc::model_config(&info, &asked).unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, &config.input[0].dims), (4, &vec![2, 3]));
    let unknown = ModelConfigRequest { name: "other".into(), version: String::new() };
    assert_eq!(grpc::model_config(&info, &unknown).unwrap_err().code(), Code::NotFound);

    let all = ModelStatisticsRequest::default();
    let found = grpc::statistics(info.clone(), &*control, &all).unwrap().into_inner();
    assert_eq!(found.model_stats[0].version, "1");
    let stats = found.model_stats[0].inference_stats.unwrap();
    assert_eq!(stats.success.map(|s| (s.count, s.ns)), Some((2, 30)));

    let name = || "toy".to_string();
    let unload = || RepositoryModelUnloadRequest { model_name: name(), ..Default::default() };
    let load = || RepositoryModelLoadRequest { model_name: name(), ..Default::default() };
    let refused = grpc::unload(&info, &*control, tonic::Request::new(unload())).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    grpc::unload(&info, &*control, with_token(unload())).unwrap();
    let ready = |ready| RepositoryIndexRequest { ready, ..Default::default() };
    assert_eq!(grpc::index(&*predictor, &ready(true)).unwrap().into_inner().models, []);
    let models = grpc::index(&*predictor, &ready(false)).unwrap().into_inner().models;
    assert_eq!((models.len(), models[0].state.as_str()), (1, "UNAVAILABLE"));
    grpc::load(&info, &*control, with_token(load())).await.unwrap();
    assert!(predictor.ready());

    let shown = grpc::trace_setting(&info, &*control, tonic::Request::new(Default::default()));
    assert_eq!(shown.unwrap().into_inner().settings["trace_level"].value, ["OFF"]);
    let mut on = TraceSettingRequest::default();
    on.settings.insert("trace_level".into(), SettingValue { value: vec!["TIMESTAMPS".into()] });
    let refused = grpc::trace_setting(&info, &*control, tonic::Request::new(on.clone()));
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    let refused = grpc::trace_setting(&info, &*control, with_token(on)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let logs = grpc::log_settings(&*control, tonic::Request::new(LogSettingsRequest::default()));
    assert_eq!(logs.unwrap().into_inner().settings.len(), 6);
}

fn with_token<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", TOKEN.parse().unwrap());
    request
}
