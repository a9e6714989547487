//! Copies of a node's checkpoints in another place, from which another machine can go on.
//!
//! ```text
//! <runs.store>/<node>/<run>/run.json                       files of the run itself
//!                           step-00000500/conv1.optimizer  as on disk
//!                                         manifest.json    last: without it there is no step
//! ```
//!
//! A place that cannot be reached holds up nothing: the run goes on, says so once, and what was not
//! copied is tried again with the next checkpoint.

mod place;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

pub use self::place::check_url;
use self::place::{Place, Problem};

const STEP: &str = "step-";

/// What can be copied of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// A file in the run's folder.
    File(String),
    /// A complete step.
    Step(u64),
}

/// The copies of one node.
pub struct Copies {
    url: String,
    place: Place,
    /// First part of every key: which node.
    node: String,
    /// Name of the file that makes a step complete.
    manifest: &'static str,
    /// Runs and what of them is still to be copied.
    pending: Mutex<BTreeSet<(String, Item)>>,
    /// Whether the place failed, and that was said.
    failed: AtomicBool,
}

impl Copies {
    pub fn open(
        url: &str,
        variables: impl Iterator<Item = (String, String)>,
        node: &str,
        manifest: &'static str,
    ) -> Result<Self, Problem> {
        Ok(Self {
            url: url.into(),
            place: Place::open(url, variables)?,
            node: node.into(),
            manifest,
            pending: Mutex::default(),
            failed: AtomicBool::new(false),
        })
    }

    fn key(&self, run: &str) -> String {
        format!("{}/{run}", self.node)
    }

    fn step_key(&self, run: &str, step: u64) -> String {
        format!("{}/{}", self.key(run), step_name(step))
    }

    /// Copies a step, and what could not be copied before. `runs` is the folder of all runs.
    pub fn put_step(&self, runs: &Path, run: &str, step: u64) {
        self.pending().insert((run.into(), Item::Step(step)));
        self.catch_up(runs);
    }

    /// The same of a file in the run's folder.
    pub fn put_file(&self, runs: &Path, run: &str, name: &str) {
        self.pending().insert((run.into(), Item::File(name.into())));
        self.catch_up(runs);
    }

    fn catch_up(&self, runs: &Path) {
        let mut pending = self.pending();
        while let Some((run, item)) = pending.first().cloned() {
            let outcome = self.put(runs, &run, &item);
            if self.noted(outcome).is_none() {
                return;
            }
            pending.pop_first();
        }
    }

    fn put(&self, runs: &Path, run: &str, item: &Item) -> Result<(), Problem> {
        match item {
            Item::File(name) => {
                let file = runs.join(run).join(name);
                // It may have been removed since.
                match file.exists() {
                    true => self.place.put(&format!("{}/{name}", self.key(run)), &file),
                    false => Ok(()),
                }
            }
            Item::Step(step) => self.put_whole(&runs.join(run).join(step_name(*step)), run, *step),
        }
    }

    fn put_whole(&self, folder: &Path, run: &str, step: u64) -> Result<(), Problem> {
        let Ok(entries) = folder.read_dir() else { return Ok(()) };
        let key = self.step_key(run, step);
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name != self.manifest {
                self.place.put(&format!("{key}/{name}"), &entry.path())?;
            }
        }
        self.place.put(&format!("{key}/{}", self.manifest), &folder.join(self.manifest))
    }

    /// Complete steps of a run; none if the place cannot be reached.
    pub fn steps(&self, run: &str) -> BTreeSet<u64> {
        let outcome = self.place.list(&self.key(run));
        let keys = self.noted(outcome).unwrap_or_default();
        let step = |key: &String| {
            let (folder, name) = key.rsplit_once('/')?;
            let step = folder.rsplit('/').next()?.strip_prefix(STEP)?;
            if name == self.manifest { step.parse().ok() } else { None }
        };
        keys.iter().filter_map(step).collect()
    }

    /// Copies the step's manifest into `folder`; false if it is not here or cannot be reached.
    pub fn get_manifest(&self, run: &str, step: u64, folder: &Path) -> bool {
        let key = format!("{}/{}", self.step_key(run, step), self.manifest);
        let outcome = self.place.get(&key, &folder.join(self.manifest));
        self.noted(outcome) == Some(true)
    }

    /// Copies a file of a step into `folder`.
    pub fn get(&self, run: &str, step: u64, name: &str, folder: &Path) -> Result<(), Problem> {
        let key = format!("{}/{name}", self.step_key(run, step));
        match self.place.get(&key, &folder.join(name)) {
            Ok(true) => Ok(()),
            Ok(false) => Err("is in the manifest, but not there".into()),
            Err(problem) => Err(problem),
        }
    }

    /// Copies a file of a run; false if it is not here or cannot be reached.
    pub fn get_file(&self, run: &str, name: &str, to: &Path) -> bool {
        let outcome = self.place.get(&format!("{}/{name}", self.key(run)), to);
        self.noted(outcome) == Some(true)
    }

    /// Removes a step.
    pub fn remove(&self, run: &str, step: u64) {
        self.pending().remove(&(run.into(), Item::Step(step)));
        let outcome = self.remove_whole(&self.step_key(run, step));
        self.noted(outcome);
    }

    fn remove_whole(&self, key: &str) -> Result<(), Problem> {
        let mut keys = self.place.list(key)?;
        // The manifest first: a removal cut short leaves no step.
        keys.sort_by_key(|key| !key.ends_with(self.manifest));
        keys.iter().try_for_each(|key| self.place.delete(key))
    }

    /// Where a file of a step is, for people.
    pub fn shown(&self, run: &str, step: u64, name: &str) -> String {
        format!("{}/{}/{name}", self.url.trim_end_matches('/'), self.step_key(run, step))
    }

    /// What came of it, if the place could be reached; says when it fails and when it is back.
    fn noted<T>(&self, outcome: Result<T, Problem>) -> Option<T> {
        let failed = outcome.is_err();
        match (&outcome, self.failed.swap(failed, Ordering::Relaxed)) {
            (Err(problem), false) => tracing::warn!(
                "runs.store {}: {problem}; going on without it, and trying again with the next \
                 checkpoint",
                self.url
            ),
            (Ok(_), true) => tracing::info!("runs.store {}: reached again", self.url),
            _ => {}
        }
        outcome.ok()
    }

    fn pending(&self) -> MutexGuard<'_, BTreeSet<(String, Item)>> {
        self.pending.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// The folder of a step.
pub fn step_name(step: u64) -> String {
    format!("{STEP}{step:08}")
}
