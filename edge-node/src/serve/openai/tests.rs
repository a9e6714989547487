//! Tests of what an edge without a tokenizer, a template or a generating model says. What clients do
//! with one is in `serve/text_clients_tests`.

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use tower::ServiceExt;

use super::*;
use crate::serve::{TextFiles, fake_generator::FakeGenerator};

/// Status and body of a POST to a server of a model with so many positions.
async fn post(positions: usize, path: &str, body: &str) -> (u16, Value) {
    let files = TextFiles::open(None).unwrap();
    let generator = Arc::new(FakeGenerator { positions, ids: 0..10, ..Default::default() });
    let service = Arc::new(TextService::new(generator, "toy".into(), files, 100));
    let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
    let response = openai_router(service).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap()
}

#[tokio::test]
async fn a_model_that_does_not_generate_says_what_to_use() {
    let (status, body) = post(0, "/v1/completions", r#"{"model": "toy", "prompt": "x"}"#).await;
    assert_eq!(status, 400, "{body}");
    assert!(message(&body).contains("/v2/models/toy/infer"), "{body}");
}

#[tokio::test]
async fn an_edge_without_a_tokenizer_says_which_key_to_set() {
    let chat = r#"{"model": "toy", "messages": [{"role": "user", "content": "x"}]}"#;
    let text = r#"{"model": "toy", "prompt": "x"}"#;
    for (path, body) in [("/v1/completions", text), ("/v1/chat/completions", chat)] {
        let (status, body) = post(64, path, body).await;
        assert_eq!((status, &body["error"]["type"]), (400, &"invalid_request_error".into()));
        assert!(message(&body).contains("weights.tokenizer"), "{body}");
    }
}

#[tokio::test]
async fn wrong_methods_and_long_bodies_have_openais_error() {
    let (status, body) = post(64, "/v1/models", "").await;
    assert_eq!(status, 405);
    assert!(message(&body).contains("POST"), "{body}");
    let (status, body) = post(64, "/v1/completions", &" ".repeat(MAX_BODY_BYTES + 1)).await;
    assert_eq!(status, 413);
    assert!(message(&body).contains("over 4194304 bytes"), "{body}");
}
