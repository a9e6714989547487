//! A predictor for tests: each row of the output is the sum and the first value of its sample.

use cleave_shared::tensor::HostTensor;

use super::{InferError, ModelInfo, Prediction, Predictor, Timing};

#[derive(Default)]
pub struct Fake {
    pub down: bool,
    /// What every prediction fails with.
    pub failure: Option<InferError>,
}

pub fn info() -> ModelInfo {
    ModelInfo {
        name: "toy".into(),
        version: "3".into(),
        platform: "cleave".into(),
        input_name: "input".into(),
        input_shape: vec![2, 3],
        output_name: "logits".into(),
        output_shape: vec![2],
        max_batch: 4,
    }
}

impl Predictor for Fake {
    fn model(&self) -> ModelInfo {
        info()
    }

    fn ready(&self) -> bool {
        !self.down
    }

    async fn predict(&self, input: HostTensor) -> Result<Prediction, InferError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let values = input.to_f32().map_err(|e| InferError::Internal(e.to_string()))?;
        let rows: Vec<f32> = values.chunks(6).flat_map(|x| [x.iter().sum(), x[0]]).collect();
        Ok(Prediction {
            output: HostTensor::from_f32(vec![rows.len() / 2, 2], &rows),
            timing: Timing {
                head_ms: 1.5,
                encode_ms: 2.5,
                uplink_ms: 3.5,
                tail_ms: 4.5,
                downlink_ms: 5.5,
                decode_ms: 6.5,
            },
            split_point: 5,
        })
    }
}
