//! What a process's edges did, as lines: of steps and rounds in `metrics.jsonl`, of rounds for the user.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::train::Validated;

/// One step of one edge.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub round: u64,
    pub edge: usize,
    /// Within its turn.
    pub step: u64,
    /// Before the update; of the edge's batch, or of the joint one.
    pub loss: f32,
    pub accuracy: f64,
    pub tail_ms: f64,
    pub step_ms: f64,
    /// Bytes over this edge's link since it joined.
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line<'a> {
    GroupStep(&'a Step),
    Validation(&'a Validated),
}

pub struct Lines {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    validated: Option<Validated>,
    /// Sum and count of losses since the last round that was validated.
    loss: (f64, u64),
}

impl Lines {
    /// `metrics.jsonl` in the run's folder, or `edge-I.jsonl` of one of several processes.
    pub fn open(dir: &Path, edge: Option<usize>) -> Result<Self, String> {
        let name = edge.map_or("metrics.jsonl".into(), |edge| format!("edge-{edge}.jsonl"));
        let path = dir.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { path, state: Mutex::new(State { file, validated: None, loss: (0.0, 0) }) })
    }

    pub fn step(&self, step: &Step) -> Result<(), String> {
        let mut state = self.state();
        state.loss.0 += f64::from(step.loss);
        state.loss.1 += 1;
        self.write(&mut state, &Line::GroupStep(step))
    }

    pub fn validation(&self, rounds: u64, validated: Validated) -> Result<(), String> {
        let mut state = self.state();
        let Validated { epoch, loss, score, .. } = &validated;
        let (sum, count) = std::mem::take(&mut state.loss);
        let mean = match count {
            0 => String::new(),
            _ => format!("train loss {:.4}, ", sum / count as f64),
        };
        eprintln!("round {epoch}/{rounds}: {mean}validation loss {loss:.4}, {score}");
        self.write(&mut state, &Line::Validation(&validated))?;
        state.validated = Some(validated);
        Ok(())
    }

    /// The last validation that an edge of this process made.
    pub fn validated(&self) -> Option<Validated> {
        self.state().validated
    }

    fn write(&self, state: &mut State, line: &Line) -> Result<(), String> {
        let mut text = serde_json::to_vec(line).expect("plain data");
        text.push(b'\n');
        // One write a line: a kill leaves whole lines, or one cut short.
        state.file.write_all(&text).map_err(|e| format!("{}: {e}", self.path.display()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
