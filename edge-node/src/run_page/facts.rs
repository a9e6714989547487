//! What a run was, in words.

use indicatif::{FormattedDuration, HumanBytes};
use serde::Serialize;
use std::time::Duration;

use super::{Run, curves::total_bytes};

/// A name and what it is.
#[derive(Debug, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
}

/// One line below the title.
pub fn summary(run: &Run) -> String {
    let record = &run.record;
    let (model, split) = (record.model.family_name(), record.split_point);
    let (stages, steps) = (record.model.stage_count(), run.steps.len());
    format!("Split learning of {model}, cut at stage {split} of {stages}: {steps} steps.")
}

pub fn facts(run: &Run) -> Vec<Fact> {
    let record = &run.record;
    let last = run.steps.last();
    let (uplink, downlink) = total_bytes(&run.steps);
    let seconds = run.steps.iter().map(|s| s.step_ms).sum::<f64>() / 1e3;
    let time = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
    let shares: Vec<f64> = run.steps.iter().filter_map(|s| s.overlap).collect();
    let mut facts = Vec::new();
    let mut fact = |name, value: String| facts.push(Fact { name, value });
    if let Some(best) = run.validated.last() {
        fact("Last validation", format!("loss {:.4}, {}", best.loss, best.score));
    }
    fact("Steps", format!("{} in {} epochs", run.steps.len(), last.map_or(0, |s| s.epoch)));
    fact("Time in steps", FormattedDuration(time).to_string());
    fact("Sent up", HumanBytes(uplink).to_string());
    fact("Sent down", HumanBytes(downlink).to_string());
    if !shares.is_empty() {
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        fact("Mean overlap", format!("{:.1} %", mean * 100.0));
    }
    fact("Batch size", record.batch_size.to_string());
    let micro_batches = last.map_or(1, |s| s.micro_batches);
    fact("Micro-batches", micro_batches.to_string());
    fact("Optimiser", flat_json(&record.training.optimizer));
    fact("Loss", flat_json(&record.training.loss));
    let (up, down) = (&record.activation_codec, &record.gradient_codec);
    fact("Codecs", format!("{up} up, {down} down"));
    fact("Seed", record.seed.to_string());
    facts
}

/// `sgd, learning rate 0.1, momentum 0.9` from an object with a kind; a text as it is.
fn flat_json(value: &impl Serialize) -> String {
    let shown = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_string);
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(object)) => {
            let kind = object.get("kind").map(shown);
            let rest = object.iter().filter(|(key, _)| *key != "kind");
            let rest = rest.map(|(key, v)| format!("{} {}", key.replace('_', " "), shown(v)));
            kind.into_iter().chain(rest).collect::<Vec<_>>().join(", ")
        }
        Ok(other) => shown(&other),
        Err(_) => String::new(),
    }
}
