//! What a process's edges did, as lines: of steps and rounds in `metrics.jsonl`, of rounds for the user.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::{jsonl::JsonLines, train::Validated};

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
    state: Mutex<State>,
}

struct State {
    lines: JsonLines,
    validated: Option<Validated>,
    /// Sum and count of losses since the last round that was validated.
    loss: (f64, u64),
}

impl Lines {
    /// `metrics.jsonl` in the run's folder, or `edge-I.jsonl` of one of several processes.
    pub fn open(dir: &Path, edge: Option<usize>) -> Result<Self, String> {
        let name = edge.map_or("metrics.jsonl".into(), |edge| format!("edge-{edge}.jsonl"));
        let lines = JsonLines::open(dir.join(name))?;
        Ok(Self { state: Mutex::new(State { lines, validated: None, loss: (0.0, 0) }) })
    }

    pub fn step(&self, step: &Step) -> Result<(), String> {
        let mut state = self.state();
        state.loss.0 += f64::from(step.loss);
        state.loss.1 += 1;
        state.lines.write(&Line::GroupStep(step))?;
        Ok(())
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
        state.lines.write(&Line::Validation(&validated))?;
        state.validated = Some(validated);
        Ok(())
    }

    /// The last validation that an edge of this process made.
    pub fn validated(&self) -> Option<Validated> {
        self.state().validated
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    fn step(step: u64) -> Step {
        Step {
            round: 1,
            edge: 1,
            step,
            loss: 0.5,
            accuracy: 0.25,
            tail_ms: 1.0,
            step_ms: 2.0,
            uplink_bytes: 30,
            downlink_bytes: 40,
        }
    }

    #[test]
    fn a_line_that_was_cut_short_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let lines = Lines::open(dir.path(), Some(1)).unwrap();
        (0..2).for_each(|i| lines.step(&step(i)).unwrap());
        drop(lines);
        let path = dir.path().join("edge-1.jsonl");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"kind\":\"group-step\",\"rou")).unwrap();

        Lines::open(dir.path(), Some(1)).unwrap().step(&step(2)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&whole), "{text}");
        let parsed = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let steps: Vec<u64> = parsed.map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [0, 1, 2]);
    }
}
