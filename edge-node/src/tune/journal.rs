//! The search on disk: `tune/plan.json`, and a line in `tune/trials.jsonl` for each trial that ended.

use std::{fs, path::Path};

use cleave_shared::checkpoint::write_atomic;
use serde::{Deserialize, Serialize};

use super::{
    space::{Search, Space, Trial},
    stopping::Rule,
};
use crate::{jsonl::JsonLines, train::Validated};

/// What makes a search the search it is; the number of trials may grow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub space: Space,
    pub search: Search,
    pub rule: Rule,
    pub seed: u64,
    pub epochs: u64,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Done,
    /// By the rule of early stopping.
    Stopped,
    Failed,
}

/// A trial that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    #[serde(flatten)]
    pub trial: Trial,
    /// Its run.
    pub run: String,
    pub state: State,
    /// The last validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validated>,
    /// What was compared, for each epoch; the lower the better.
    pub curve: Vec<f64>,
    pub seconds: f64,
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Marked once the search is over.
    #[serde(default)]
    pub best: bool,
}

impl Ended {
    /// What trials are sorted by: the last value, worst for a failure.
    pub fn value(&self) -> f64 {
        match self.state {
            State::Failed => f64::INFINITY,
            _ => self.validation.map_or(f64::INFINITY, |v| v.score.badness()),
        }
    }
}

pub struct Journal {
    lines: JsonLines,
    ended: Vec<Ended>,
}

impl Journal {
    /// Begins the search, or takes up the one that is there.
    pub fn open(folder: &Path, plan: &Plan, resume: bool) -> Result<Self, String> {
        let path = folder.join("plan.json");
        let known: Option<Plan> = match fs::read(&path) {
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display()))?,
            ),
            Err(_) => None,
        };
        match known {
            Some(_) if !resume => {
                return Err(format!(
                    "{}: a search was begun here; go on with --resume, or name another run",
                    folder.display()
                ));
            }
            Some(known) if known != *plan => {
                let json = |p: &Plan| serde_json::to_string(p).expect("plain data");
                let (was, is) = (json(&known), json(plan));
                return Err(format!("--resume: the search was begun as {was}, and is {is}"));
            }
            Some(_) => {}
            None => {
                fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
                let json = serde_json::to_vec_pretty(plan).expect("plain data");
                write_atomic(&path, &json).map_err(|e| e.to_string())?;
            }
        }
        let lines = JsonLines::open(folder.join("trials.jsonl"))?;
        // A line that a kill cut short is a trial that has not ended; a failure is tried again.
        let mut ended: Vec<Ended> = lines.read()?;
        ended.retain(|trial| trial.state != State::Failed);
        let mut journal = Self { lines, ended };
        journal.rewrite()?;
        Ok(journal)
    }

    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    pub fn add(&mut self, ended: Ended) -> Result<(), String> {
        self.lines.write(&ended)?;
        self.ended.push(ended);
        Ok(())
    }

    /// Sorts the trials, best first, and marks the best.
    pub fn finish(&mut self) -> Result<(), String> {
        self.ended.sort_by(|a, b| a.value().total_cmp(&b.value()));
        for (place, ended) in self.ended.iter_mut().enumerate() {
            ended.best = place == 0 && ended.value().is_finite();
        }
        self.rewrite()
    }

    fn rewrite(&mut self) -> Result<(), String> {
        self.lines.replace(&self.ended)?;
        Ok(())
    }
}
