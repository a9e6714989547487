//! `metrics.jsonl`: one JSON object for each step, and one for each validation.
//!
//! The file follows the run: when the run goes back to a checkpoint, so do the lines, and what is
//! left is one line a step whatever happened in between.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use cleave_shared::checkpoint::write_atomic;
use serde::{Deserialize, Serialize};

use super::Score;

/// What a validation found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// The last step of the epoch.
    pub step: u64,
    pub epoch: u64,
    pub loss: f64,
    #[serde(flatten)]
    pub score: Score,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Line {
    Step {
        step: u64,
        epoch: u64,
        loss: f32,
        /// Of the batch, before the update.
        #[serde(flatten)]
        score: Score,
        head_ms: f64,
        /// From sending the activation to having the gradient, without the tail's time.
        link_ms: f64,
        tail_ms: f64,
        step_ms: f64,
        /// See [`super::overlap`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        overlap: Option<f64>,
        /// Parts that the step was cut into.
        #[serde(default = "one")]
        micro_batches: u32,
        /// Of the update; 0 in files from before it was written.
        #[serde(default)]
        learning_rate: f64,
        /// Norm of the whole model's gradient before it was clipped, if it was computed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gradient_norm: Option<f64>,
        /// Bytes over the link since training began.
        uplink_bytes: u64,
        downlink_bytes: u64,
    },
    Validation(Validated),
}

fn one() -> u32 {
    1
}

impl Line {
    fn step(&self) -> u64 {
        match self {
            Line::Step { step, .. } | Line::Validation(Validated { step, .. }) => *step,
        }
    }
}

pub struct Metrics {
    path: PathBuf,
    file: File,
    /// Every epoch that was validated.
    validated: Vec<Validated>,
    /// Of the last step.
    micro_batches: Option<u32>,
}

impl Metrics {
    pub fn open(dir: &Path, step: u64) -> Result<Self, String> {
        let path = dir.join("metrics.jsonl");
        let file = append(&path)?;
        let mut metrics = Self { path, file, validated: Vec::new(), micro_batches: None };
        metrics.rewind(step)?;
        Ok(metrics)
    }

    pub fn write(&mut self, line: &Line) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).expect("plain data");
        text.push(b'\n');
        // One write a line: a kill leaves whole lines, or one cut short that `rewind` drops.
        self.file.write_all(&text).map_err(|e| format!("{}: {e}", self.path.display()))?;
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
        let text = fs::read_to_string(&self.path).map_err(|e| self.explain(e))?;
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Line>(l).ok());
        let kept: Vec<Line> = lines.filter(|l| l.step() <= step).collect();
        let mut bytes = Vec::with_capacity(text.len());
        self.validated.clear();
        self.micro_batches = None;
        for line in &kept {
            bytes.extend(serde_json::to_vec(line).expect("plain data"));
            bytes.push(b'\n');
            match line {
                Line::Validation(validated) => self.validated.push(*validated),
                Line::Step { micro_batches, .. } => self.micro_batches = Some(*micro_batches),
            }
        }
        if bytes != text.as_bytes() {
            write_atomic(&self.path, &bytes).map_err(|e| e.to_string())?;
            self.file = append(&self.path)?;
        }
        Ok(())
    }

    fn explain(&self, error: std::io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

fn append(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
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
}
