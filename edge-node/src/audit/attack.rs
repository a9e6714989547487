//! Trains the decoder on pairs of activation and input, and rebuilds inputs that it has not seen.
//!
//! The attacker knows the head and has data like the user's: what a cloud can have that took part in
//! training. It draws fresh noise each time it shows an activation to its decoder, and its held-out
//! activations are noised once, as the cloud would get them.

use burn::{
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Tensor},
};
use cleave_shared::{
    data::BatchPlan,
    model::{Activation, ModelError, Value},
    privacy::Shield,
};
use indicatif::ProgressBar;

use super::{decoder::Decoder, subject::Samples};

const BATCH: usize = 32;
const LEARNING_RATE: f64 = 1e-3;
/// The step of activations that are only looked at; training counts from 1.
const LOOK: u64 = 0;

/// One attacker, who knows nothing yet.
pub struct Attacker<'a> {
    pub epochs: u64,
    pub seed: u64,
    /// What is done to activations before they are sent.
    pub shield: &'a Shield,
    /// Counts epochs.
    pub shown: &'a ProgressBar,
}

/// Mean and deviation of what the decoder is given.
struct Scale {
    mean: f64,
    deviation: f64,
}

impl Attacker<'_> {
    /// Learns from `seen` and `inputs`, sample for sample, and rebuilds the inputs of `asked`.
    pub fn rebuild(
        &self,
        seen: &Samples,
        inputs: &Samples,
        asked: &Samples,
    ) -> Result<Samples, ModelError> {
        let device = Device::flex().autodiff();
        let (low, high) = inputs.range();
        let scale = self.scale(seen);
        let mut decoder = Decoder::new(&seen.shape, &inputs.shape, self.seed, &device)?;
        let mut optimizer = AdamConfig::new().init();
        let plan = BatchPlan::new((0..seen.count()).collect(), BATCH, self.seed);
        let plan = plan.map_err(|e| ModelError::Training(e.to_string()))?;
        let per_epoch = plan.steps_per_epoch();
        for step in 1..=self.epochs * per_epoch {
            let batch = plan.batch(step);
            let sent = self.sent(seen.rows(&batch, &device), step, 0);
            // Inputs between 0 and 1, whatever the data's own range is.
            let wanted = (inputs.rows(&batch, &device) - low) / (high - low);
            let loss = (decoder.forward(scale.apply(sent)) - wanted).square().mean();
            let grads = GradientsParams::from_grads(loss.backward(), &decoder);
            decoder = optimizer.step(LEARNING_RATE, decoder, grads);
            self.shown.inc(step.is_multiple_of(per_epoch).into());
        }
        let mut values = Vec::with_capacity(asked.count() * inputs.width());
        let all: Vec<usize> = (0..asked.count()).collect();
        for batch in all.chunks(BATCH) {
            let first = seen.count() + batch[0];
            let sent = self.sent(asked.rows(batch, &device), LOOK, first);
            let rebuilt = decoder.forward(scale.apply(sent)).clamp(0.0, 1.0);
            let rebuilt = (rebuilt * (high - low) + low).into_data();
            values.extend(rebuilt.iter::<f32>());
        }
        Ok(Samples { shape: inputs.shape.clone(), values })
    }

    /// Activations as they leave the edge. The shield needs no names: a sample's floats are in a row.
    fn sent(&self, rows: Tensor<2>, step: u64, first_sample: usize) -> Tensor<2> {
        let sent = self.shield.apply(Activation::single(Value::R2(rows)), step, first_sample);
        sent.values().find_map(|value| value.rows()).expect("it was a matrix")
    }

    /// Adam likes values around 0 of size 1; activations have any size, and noise adds to it.
    fn scale(&self, seen: &Samples) -> Scale {
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        let all: Vec<usize> = (0..seen.count()).collect();
        for batch in all.chunks(BATCH) {
            let sent = self.sent(seen.rows(batch, &Device::flex()), LOOK, batch[0]).into_data();
            for value in sent.iter::<f64>() {
                (sum, squares, count) = (sum + value, squares + value * value, count + 1.0);
            }
        }
        let mean = sum / count;
        Scale { mean, deviation: (squares / count - mean * mean).max(1e-12).sqrt() }
    }
}

impl Scale {
    fn apply(&self, rows: Tensor<2>) -> Tensor<2> {
        (rows - self.mean) / self.deviation
    }
}
