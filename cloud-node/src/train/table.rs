//! The runs that are in memory.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Mutex as AsyncMutex;

use super::run::Run;

/// A run, held by one message at a time; empty until it is opened.
pub type Slot = Arc<AsyncMutex<Option<Run>>>;

/// Runs by id. A run that is pushed out continues from its checkpoints.
pub struct RunTable {
    most: usize,
    /// Most recently opened last.
    runs: Mutex<Vec<(String, Slot)>>,
}

impl RunTable {
    pub fn new(most: usize) -> Self {
        Self { most, runs: Mutex::default() }
    }

    /// The slot of this run, made if it is new. Slots that a stream holds are never pushed out, so
    /// that a run cannot be in memory twice.
    pub fn slot(&self, run: &str) -> Result<Slot, String> {
        let mut runs = self.runs();
        if let Some(i) = runs.iter().position(|(id, _)| id == run) {
            let entry = runs.remove(i);
            let slot = entry.1.clone();
            runs.push(entry);
            return Ok(slot);
        }
        if runs.len() >= self.most {
            let Some(idle) = runs.iter().position(|(_, slot)| Arc::strong_count(slot) == 1) else {
                return Err(format!("{} runs are being trained, which is the most", runs.len()));
            };
            runs.remove(idle);
        }
        let slot = Slot::default();
        runs.push((run.into(), slot.clone()));
        Ok(slot)
    }

    /// Frees the memory of a run that ended.
    pub fn forget(&self, run: &str) {
        self.runs().retain(|(id, _)| id != run);
    }

    fn runs(&self) -> MutexGuard<'_, Vec<(String, Slot)>> {
        self.runs.lock().unwrap_or_else(|p| p.into_inner())
    }
}
