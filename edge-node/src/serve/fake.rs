//! For tests: a predictor, each row of whose output is the sum and the first value of its sample, and its control.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{HeaderMap, StatusCode, header};
use cleave_shared::{deadline::Deadline, model::Port, tensor::HostTensor};

use super::{
    Control, Durations, ExitUse, Gate, InferError, InferRequest, InferenceStats, ModelInfo,
    Prediction, Predictor, Query, Refused, Statistics, Timing,
};

#[derive(Default)]
pub struct Fake {
    pub down: bool,
    pub has_exits: bool,
    /// What every prediction fails with.
    pub failure: Option<InferError>,
    pub waits: Waits,
}

/// How long the client of the last request still waited, if it said so.
#[derive(Clone, Default)]
pub struct Waits(Arc<Mutex<Option<Duration>>>);

impl Waits {
    /// Rounded up, so that it is what the client said, whatever the way here took.
    pub fn minutes(&self) -> Option<u64> {
        self.0.lock().unwrap().map(|left| left.as_secs().div_ceil(60))
    }
}

pub fn info() -> ModelInfo {
    ModelInfo {
        name: "toy".into(),
        version: "3".into(),
        platform: "cleave".into(),
        inputs: vec![Port::float("input", &[2, 3])],
        outputs: vec![Port::float("logits", &[2])],
        takes_text: false,
        max_batch: 4,
    }
}

/// A model that takes token ids and has two outputs.
pub fn tokens() -> ModelInfo {
    let optional = |name, below| Port::tokens(name, 5).below(below).optional();
    ModelInfo {
        inputs: vec![
            Port::tokens("input_ids", 5).below(30),
            optional("attention_mask", 2),
            optional("token_type_ids", 2),
        ],
        outputs: vec![Port::sequence("states", 5, &[8]), Port::float("pooled", &[8])],
        takes_text: true,
        ..info()
    }
}

impl Predictor for Fake {
    fn model(&self) -> ModelInfo {
        info()
    }

    fn ready(&self) -> bool {
        !self.down
    }

    async fn predict(&self, request: InferRequest) -> Result<Prediction, InferError> {
        let InferRequest { query, exits, deadline } = request;
        *self.waits.0.lock().unwrap() = deadline.map(Deadline::left);
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Query::Tensors(inputs) = query else {
            return Err(InferError::Internal("texts for a model without a tokenizer".into()));
        };
        let values = inputs[0].1.to_f32().map_err(|e| InferError::Internal(e.to_string()))?;
        let rows: Vec<f32> = values.chunks(6).flat_map(|x| [x.iter().sum(), x[0]]).collect();
        Ok(Prediction {
            outputs: vec![("logits".into(), HostTensor::from_f32(vec![rows.len() / 2, 2], &rows))],
            timing: Timing {
                head_ms: 1.5,
                encode_ms: 2.5,
                uplink_ms: 3.5,
                tail_ms: 4.5,
                downlink_ms: 5.5,
                decode_ms: 6.5,
            },
            split_point: 5,
            exits: (self.has_exits && exits).then(|| ExitUse {
                exit: "pool1,none".into(),
                confidence: 0.75,
                offline: false,
            }),
        })
    }
}

/// Who sends the token may change something.
pub const TOKEN: &str = "Bearer 0123456789abcdef";

#[derive(Default)]
pub struct FakeControl {
    pub gate: Gate,
    /// What every load fails with.
    pub failure: Option<InferError>,
}

#[tonic::async_trait]
impl Control for FakeControl {
    fn statistics(&self) -> Statistics {
        let success = Durations { count: 2, ns: 30 };
        let inference_stats = InferenceStats { success, ..InferenceStats::default() };
        Statistics { inference_count: 6, execution_count: 2, inference_stats, last_inference: 7 }
    }

    async fn load(&self) -> Result<(), InferError> {
        match &self.failure {
            Some(failure) => return Err(failure.clone()),
            None => self.gate.set(true),
        }
        Ok(())
    }

    fn unload(&self) {
        self.gate.set(false);
    }

    fn may_change(&self, headers: &HeaderMap) -> Result<(), Refused> {
        match headers.get(header::AUTHORIZATION).map(|sent| sent == TOKEN) {
            Some(true) => Ok(()),
            Some(false) => Err(Refused { status: StatusCode::FORBIDDEN, why: "another token" }),
            None => Err(Refused { status: StatusCode::UNAUTHORIZED, why: "no token" }),
        }
    }
}
