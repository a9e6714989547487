//! Sends the held-out samples to a running edge, and reports accuracy and latency.

use std::time::{Duration, Instant};

use cleave_shared::{
    config::Config,
    data::{Batch, Feed, Part, Target},
    model::loss::argmax,
    wire::NamedTensors,
};

pub use crate::client::EdgeClient;
use crate::{bar::bar, report::LatencyTable};

/// What an edge answered to the held-out samples.
#[derive(Debug)]
pub struct Evaluation {
    pub correct: usize,
    pub samples: usize,
    pub split_point: u64,
    pub latency: LatencyTable,
    pub elapsed: Duration,
}

impl EdgeClient {
    /// Sends every held-out sample on its own, one after the other, and checks the answers.
    pub async fn evaluate(&mut self, config: &Config) -> Result<Evaluation, String> {
        let dataset = config.data.open().map_err(|e| e.to_string())?;
        let split = dataset.split(config.seed);
        let feed = Feed::new(&config.model, config.train.loss, dataset)
            .map_err(|e| format!("data: {e}"))?;
        if !matches!(feed.dataset().target(), Target::Classes { .. }) {
            return Err("evaluate counts right classes, which these data have not; edge-node \
                        validate measures a run on any data"
                .into());
        }
        let names: Vec<String> = config.model.inputs().into_iter().map(|p| p.name).collect();
        let test = split.indices(Part::Test);
        let mut latency = LatencyTable::default();
        let (mut correct, mut split_point) = (0, 0);
        let begin = Instant::now();
        for &index in bar("evaluating", test.len()).wrap_iter(test.iter()) {
            let sent = Instant::now();
            let Batch { inputs, labels } = feed.batch(&[index]);
            let label = labels.to_i64().map_err(|e| e.to_string())?;
            let answer = self.infer(as_clients_name(&names, inputs)).await?;
            latency.add(&answer.timing, sent.elapsed().as_secs_f64() * 1e3);
            split_point = answer.split_point;
            correct += usize::from(label == [argmax(&logits(&answer.outputs)?) as i64]);
        }
        let elapsed = begin.elapsed();
        Ok(Evaluation { correct, samples: test.len(), split_point, latency, elapsed })
    }
}

/// The only input of a model has another name inside; several have one name.
fn as_clients_name(names: &[String], mut inputs: NamedTensors) -> NamedTensors {
    if let ([name], [(inside, _)]) = (names, &mut inputs[..]) {
        inside.clone_from(name);
    }
    inputs
}

/// The values of an answer's first output.
fn logits(outputs: &NamedTensors) -> Result<Vec<f32>, String> {
    let first = outputs.first().and_then(|(_, tensor)| tensor.to_f32().ok());
    first.ok_or_else(|| "the edge's answer has no FP32 output".into())
}

impl Evaluation {
    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "correct": self.correct,
            "samples": self.samples,
            "split_point": self.split_point,
            "seconds": self.elapsed.as_secs_f64(),
            "latency_ms": self.latency.json(),
        })
    }

    /// Accuracy and the latency table.
    pub fn render(&self, config: &Config) -> String {
        let Self { correct, samples, split_point, .. } = self;
        let stages = config.model.stage_count();
        let accuracy = *correct as f64 / (*samples).max(1) as f64 * 100.0;
        let rate = *samples as f64 / self.elapsed.as_secs_f64().max(1e-9);
        let profile = &config.link.profile;
        format!(
            "test accuracy {accuracy:.2} % ({correct}/{samples})\n\n\
             {samples} requests one after the other, {rate:.1} a second, link {profile}, split \
             point {split_point} of {stages}:\n{}",
            self.latency.render()
        )
    }
}
