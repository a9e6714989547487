//! `metrics.jsonl`: one JSON object for each step, and one for each validation.
//!
//! The file follows the run: when the run goes back to a checkpoint, so do the lines, and what is
//! left is one line a step whatever happened in between. TensorBoard's files follow it.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Score, tensorboard::EventFile};
use crate::jsonl::{self, JsonLines};

/// Name in the run's folder.
const FILE: &str = "metrics.jsonl";

/// What a validation found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// The last step of the epoch.
    pub step: u64,
    pub epoch: u64,
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f64,
    #[serde(flatten)]
    pub score: Score,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stepped {
    pub step: u64,
    pub epoch: u64,
    #[serde(deserialize_with = "number_or_nan")]
    pub loss: f32,
    /// Of the batch, before the update.
    #[serde(flatten)]
    pub score: Score,
    pub head_ms: f64,
    /// How long an activation or a gradient was under way.
    pub link_ms: f64,
    pub tail_ms: f64,
    pub step_ms: f64,
    /// See [`super::overlap`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<f64>,
    /// Parts that the step was cut into.
    #[serde(default = "one")]
    pub micro_batches: u32,
    /// Of the update; 0 in files from before it was written.
    #[serde(default)]
    pub learning_rate: f64,
    /// Norm of the whole model's gradient before it was clipped, if it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// Bytes over the link since this process began to train.
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
}

impl Stepped {
    pub fn steps_per_s(&self) -> f64 {
        1e3 / self.step_ms
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Line {
    Step(Stepped),
    Validation(Validated),
}

fn one() -> u32 {
    1
}

/// JSON has no NaN: a loss that is none is written as null.
fn number_or_nan<'de, D, F>(deserializer: D) -> Result<F, D::Error>
where
    D: Deserializer<'de>,
    F: Deserialize<'de> + From<f32>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(|| F::from(f32::NAN)))
}

impl Line {
    fn step(&self) -> u64 {
        match self {
            Line::Step(Stepped { step, .. }) | Line::Validation(Validated { step, .. }) => *step,
        }
    }
}

pub struct Metrics {
    lines: JsonLines,
    events: EventFile,
    /// Every epoch that was validated.
    validated: Vec<Validated>,
    /// Of the last step.
    micro_batches: Option<u32>,
}

impl Metrics {
    pub fn open(dir: &Path, step: u64) -> Result<Self, String> {
        let (lines, events) = (JsonLines::open(dir.join(FILE))?, EventFile::create(dir)?);
        let mut metrics = Self { lines, events, validated: Vec::new(), micro_batches: None };
        metrics.rewind(step)?;
        Ok(metrics)
    }

    pub fn write(&mut self, line: &Line) -> Result<(), String> {
        self.lines.write(line)?;
        self.events.write(line)?;
        if let Line::Validation(validated) = line {
            self.validated.push(*validated);
        }
        Ok(())
    }

    /// Whether this epoch's validation is in the file.
    pub fn has_validated(&self, epoch: u64) -> bool {
        self.validated.last().is_some_and(|last| last.epoch >= epoch)
    }

    /// Every validation so far.
    pub fn validated(&self) -> &[Validated] {
        &self.validated
    }

    /// Parts that the last step was cut into; none before the first.
    pub fn micro_batches(&self) -> Option<u32> {
        self.micro_batches
    }

    /// Drops the lines of steps after `step`.
    pub fn rewind(&mut self, step: u64) -> Result<(), String> {
        let mut kept: Vec<Line> = self.lines.read()?;
        kept.retain(|line| line.step() <= step);
        self.lines.replace(&kept)?;
        self.events.rewind(step)?;
        self.validated.clear();
        self.micro_batches = None;
        for line in kept {
            match line {
                Line::Validation(validated) => self.validated.push(validated),
                Line::Step(stepped) => self.micro_batches = Some(stepped.micro_batches),
            }
        }
        Ok(())
    }
}

/// The lines of a run, in their order; none if there is no file.
pub fn recorded_lines(dir: &Path) -> Result<Vec<Line>, String> {
    jsonl::read(&dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
    };

    use super::*;

    fn validation(step: u64) -> Line {
        let score = Score { accuracy: Some(0.9), ..Score::default() };
        Line::Validation(Validated { step, epoch: step / 10, loss: 0.5, score })
    }

    #[test]
    fn lines_follow_the_run_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(dir.path(), 0).unwrap();
        for step in [10, 20, 30] {
            metrics.write(&validation(step)).unwrap();
        }
        assert!(metrics.has_validated(3));
        metrics.rewind(20).unwrap();
        assert!(metrics.has_validated(2) && !metrics.has_validated(3));
        metrics.write(&validation(30)).unwrap();
        drop(metrics);

        let path = dir.path().join("metrics.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"kind\":\"validation\",\"st").unwrap();
        let metrics = Metrics::open(dir.path(), 30).unwrap();
        assert!(metrics.has_validated(3));
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 3);
    }

    #[test]
    fn lines_of_older_runs_are_read() {
        let old = r#"{"kind":"step","step":7,"epoch":1,"loss":0.5,"accuracy":0.25,"head_ms":1.0,
            "link_ms":2.0,"tail_ms":3.0,"step_ms":8.0,"uplink_bytes":10,"downlink_bytes":20}"#;
        let Ok(Line::Step(step)) = serde_json::from_str(old) else { panic!("{old} is not read") };
        assert_eq!((step.micro_batches, step.learning_rate), (1, 0.0));
        assert_eq!((step.overlap, step.gradient_norm), (None, None));
        assert_eq!(step.steps_per_s(), 125.0);
    }

    #[test]
    fn a_loss_that_is_no_number_is_still_a_line() {
        let line = Line::Validation(Validated {
            step: 1,
            epoch: 1,
            loss: f64::NAN,
            score: Score::default(),
        });
        let text = serde_json::to_string(&line).unwrap();
        let back: Line = serde_json::from_str(&text).unwrap();
        assert!(matches!(back, Line::Validation(v) if v.loss.is_nan()), "{text}");
    }
}
