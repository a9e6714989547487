//! An inference request over REST: JSON, or JSON and binary tensors behind it, through the edge's real routes.
#![no_main]

use std::{cell::RefCell, sync::Arc};

use axum::{Router, body::Body, http::Request};
use cleave_shared::{model::Port, tensor::HostTensor};
use edge_node::serve::{
    InferError, InferRequest, ModelInfo, Prediction, Predictor, Query, Timing, rest_router,
};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// Two models behind one name would hide the kind of input: images have floats, texts have ids.
struct Zeros {
    tokens: bool,
}

impl Predictor for Zeros {
    fn model(&self) -> ModelInfo {
        let inputs = match self.tokens {
            false => vec![Port::float("input", &[2, 3])],
            true => vec![
                Port::tokens("input_ids", 5).below(30),
                Port::tokens("attention_mask", 5).below(2).optional(),
            ],
        };
        ModelInfo {
            name: "m".into(),
            version: "1".into(),
            platform: "cleave".into(),
            inputs,
            outputs: vec![Port::float("logits", &[2])],
            takes_text: self.tokens,
            max_batch: 4,
        }
    }

    fn ready(&self) -> bool {
        true
    }

    async fn predict(&self, request: InferRequest) -> Result<Prediction, InferError> {
        let batch = match &request.query {
            Query::Tensors(tensors) => tensors[0].1.shape()[0],
            Query::Texts(texts) => texts.len(),
        };
        assert!((1..=4).contains(&batch), "a batch that nobody checked: {batch}");
        let zeros = HostTensor::from_f32(vec![batch, 2], &vec![0.0; batch * 2]);
        Ok(Prediction {
            outputs: vec![("logits".into(), zeros)],
            timing: Timing::default(),
            split_point: 1,
            exits: None,
        })
    }
}

thread_local! {
    static ROUTES: RefCell<(Runtime, [Router; 2])> = RefCell::new((
        Builder::new_current_thread().build().expect("a runtime"),
        [false, true].map(|tokens| rest_router(Arc::new(Zeros { tokens }), 4096)),
    ));
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else { return };
    let mut request = Request::post("/v2/models/m/infer").header("content-type", "application/json");
    let mut body = rest;
    if how & 2 != 0 {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { return };
        let length = u16::from_le_bytes(*length);
        request = request.header("inference-header-content-length", length.to_string());
        body = after;
    }
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    ROUTES.with_borrow_mut(|(runtime, routes)| {
        let router = routes[usize::from(how & 1)].clone();
        let answer = runtime.block_on(router.oneshot(request)).expect("routes never fail");
        let status = answer.status().as_u16();
        assert!(matches!(status, 200 | 400 | 413 | 415), "{status}");
    });
});
