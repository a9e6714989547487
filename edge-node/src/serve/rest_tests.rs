//! Tests of the REST routes through the router, without a socket.

use axum::body::{Body, to_bytes};
use axum::http::HeaderValue;
use tower::ServiceExt;

use super::*;
use crate::serve::fake::Fake;

const LIMIT: usize = 4096;

async fn send(fake: Fake, request: Request) -> (StatusCode, HeaderMap, Bytes) {
    let response = rest_router(Arc::new(fake), LIMIT).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap())
}

async fn get_json(fake: Fake, path: &str) -> (u16, Value) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let (status, _, body) = send(fake, request).await;
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

async fn post_json(path: &str, body: impl Into<Body>) -> (u16, Value) {
    let request = Request::post(path).body(body.into()).unwrap();
    let (status, _, body) = send(Fake::default(), request).await;
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

fn body() -> Value {
    let input = json!({
        "name": "input", "datatype": "FP32", "shape": [2, 2, 3], "data": [1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 7.5]
    });
    json!({ "id": "abc", "inputs": [input] })
}

#[tokio::test]
async fn health_and_metadata() {
    for path in ["/v2/health/ready", "/v2/models/toy/ready", "/v2/models/toy/versions/3/ready"] {
        let (status, body) = get_json(Fake::default(), path).await;
        assert_eq!((status, &body["ready"]), (200, &true.into()), "{path}");
        let (status, body) = get_json(Fake { down: true, ..Fake::default() }, path).await;
        assert_eq!(status, 503, "{path}");
        assert!(body["error"].as_str().unwrap().contains("not ready"));
    }
    assert_eq!(get_json(Fake::default(), "/v2/health/live").await, (200, json!({"live": true})));
    let (_, server) = get_json(Fake::default(), "/v2").await;
    assert_eq!(server["extensions"], json!(SERVER_EXTENSIONS));
    let wanted = json!({
        "name": "toy", "versions": ["3"], "platform": "cleave",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2, 3]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}],
    });
    for path in ["/v2/models/toy", "/v2/models/toy/versions/3"] {
        assert_eq!(get_json(Fake::default(), path).await, (200, wanted.clone()));
    }
}

#[tokio::test]
async fn unknown_paths_models_and_methods_are_json_errors() {
    for path in ["/", "/v2/", "/v2/modes", "/v2/models/boat", "/v2/models/toy/versions/9"] {
        let (status, body) = get_json(Fake::default(), path).await;
        assert_eq!(status, 404, "{path}");
        assert!(body["error"].is_string());
    }
    assert_eq!(get_json(Fake::default(), "/v2/models/%ff").await.0, 400);
    assert_eq!(post_json("/v2/models/boat/infer", body().to_string()).await.0, 404);

    let request = Request::delete("/v2/models/toy/infer").body(Body::empty()).unwrap();
    let (status, headers, body) = send(Fake::default(), request).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(headers[header::ALLOW], "POST");
    assert!(serde_json::from_slice::<Value>(&body).unwrap()["error"].is_string());
}

#[tokio::test]
async fn infer_answers_in_json() {
    for path in ["/v2/models/toy/infer", "/v2/models/toy/versions/3/infer"] {
        let (status, reply) = post_json(path, body().to_string()).await;
        assert_eq!(status, 200, "{reply}");
        assert_eq!((&reply["id"], &reply["model_version"]), (&json!("abc"), &json!("3")));
        let output = json!({
            "name": "logits", "datatype": "FP32", "shape": [2, 2], "data": [21.0, 1.0, 7.5, 0.0]
        });
        assert_eq!(reply["outputs"], json!([output]));
        assert_eq!(reply["parameters"]["split_point"], 5);
        assert_eq!(reply["parameters"]["decode_ms"], 6.5);
        assert_eq!(reply["parameters"].as_object().unwrap().len(), 7);
    }
}

#[tokio::test]
async fn exits_are_shown_and_can_be_turned_off() {
    let asked = async |parameters: Value| {
        let mut body = body();
        body["parameters"] = parameters;
        let request = Request::post("/v2/models/toy/infer").body(body.to_string().into()).unwrap();
        let (status, _, body) = send(Fake { has_exits: true, ..Fake::default() }, request).await;
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let (_, shown) = asked(json!({"exits": true})).await;
    let shown = &shown["parameters"];
    assert_eq!((&shown["exit"], &shown["confidence"]), (&json!("pool1,none"), &json!(0.75)));
    assert_eq!(shown["offline"], false);
    let (_, off) = asked(json!({"exits": false})).await;
    assert_eq!(off["parameters"].as_object().unwrap().len(), 7);
    let (status, bad) = asked(json!({"exits": "no"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(bad["error"].as_str().unwrap().contains("exits is not true or false"), "{bad}");
}

#[tokio::test]
async fn a_client_says_how_long_it_waits() {
    let asked = async |parameters: Value| {
        let mut body = body();
        body["parameters"] = parameters;
        let request = Request::post("/v2/models/toy/infer").body(body.to_string().into()).unwrap();
        let fake = Fake::default();
        let waits = fake.waits.clone();
        let (status, _, body) = send(fake, request).await;
        (status.as_u16(), waits.minutes(), serde_json::from_slice::<Value>(&body).unwrap())
    };
    for (parameters, wanted) in [
        (json!({}), None),
        (json!({"timeout": 0}), None),
        (json!({"timeout": 420_000_000}), Some(7)),
    ] {
        let (status, minutes, _) = asked(parameters).await;
        assert_eq!((status, minutes), (200, wanted));
    }
    for wrong in [json!("1s"), json!(-1), json!(1.5), json!(null)] {
        let (status, _, reply) = asked(json!({ "timeout": wrong })).await;
        assert_eq!(status, 400, "{wrong}");
        let why = "the parameter timeout is not a whole number of microseconds";
        assert_eq!(reply["error"], why);
    }
}

#[tokio::test]
async fn infer_answers_in_binary_when_asked() {
    let mut json = body();
    let input = json["inputs"][0].as_object_mut().unwrap();
    input.remove("data");
    input.insert("parameters".into(), json!({"binary_data_size": 48}));
    json["parameters"] = json!({"binary_data_output": true});
    let json = json.to_string();
    let tensor: Vec<u8> = [1.0f32; 12].iter().flat_map(|v| v.to_le_bytes()).collect();
    let request = Request::post("/v2/models/toy/infer")
        .header(&HEADER_LENGTH, json.len())
        .body(Body::from([json.as_bytes(), &tensor].concat()))
        .unwrap();
    let (status, headers, body) = send(Fake::default(), request).await;
    assert_eq!(status, 200);
    assert_eq!(headers[header::CONTENT_TYPE], "application/octet-stream");
    let length: usize = headers[&HEADER_LENGTH].to_str().unwrap().parse().unwrap();
    let reply: Value = serde_json::from_slice(&body[..length]).unwrap();
    assert_eq!(reply["outputs"][0]["parameters"], json!({"binary_data_size": 16}));
    assert_eq!(reply["outputs"][0].get("data"), None);
    let wanted: Vec<u8> = [6.0f32, 1.0, 6.0, 1.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(body[length..], wanted);
}

#[tokio::test]
async fn infer_refuses_bad_compressed_and_long_bodies() {
    assert_eq!(post_json("/v2/models/toy/infer", "{").await.0, 400);
    let (status, reply) = post_json("/v2/models/toy/infer", vec![b' '; LIMIT + 1]).await;
    assert_eq!(status, 413, "{reply}");
    // A stream states no length: the limit has to act while reading.
    let pieces = (0..5).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1024])));
    let stream = Body::from_stream(tokio_stream::iter(pieces));
    let (status, reply) = post_json("/v2/models/toy/infer", stream).await;
    assert_eq!(status, 413, "{reply}");
    assert!(reply["error"].as_str().unwrap().contains("over 4096 bytes"));

    let mut request = Request::post("/v2/models/toy/infer").body(Body::from("{}")).unwrap();
    request.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let (status, _, body) = send(Fake::default(), request).await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&body).contains("uncompressed"));
}

#[tokio::test]
async fn failures_of_the_prediction_reach_the_client() {
    let fake = Fake { failure: Some(InferError::Busy("full".into())), ..Fake::default() };
    let request =
        Request::post("/v2/models/toy/infer").body(Body::from(body().to_string())).unwrap();
    let (status, _, body) = send(fake, request).await;
    assert_eq!(status, 429);
    assert_eq!(&body[..], br#"{"error":"full"}"#);
}
