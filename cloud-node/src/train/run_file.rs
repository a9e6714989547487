//! What a run is, on disk beside its checkpoints, so that it is not continued as another one.

use std::{fs, io};

use cleave_shared::checkpoint::{CheckpointError, RunStore};
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::weights::store_status;

/// Fixed when a run is first opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    pub spec_hash: String,
    pub split_point: usize,
    /// The first stage behind the tail that is the edge's again, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_split: Option<usize>,
    /// Weights that the run began with.
    pub weights: String,
    /// Loss and optimiser, canonical JSON.
    pub training: String,
    /// How both directions are encoded: what a codec rounds and leaves out is part of what is learned.
    #[serde(default = "exact")]
    pub activation_codec: String,
    #[serde(default = "exact")]
    pub gradient_codec: String,
}

/// Of runs that were begun before the cloud kept it.
fn exact() -> String {
    "f32".into()
}

impl RunFile {
    const NAME: &str = "run.json";

    /// Makes the run what this file says; FAILED_PRECONDITION if it was begun as something else.
    pub fn claim(&self, store: &RunStore, run: &str) -> Result<(), Status> {
        match Self::read(store, run).map_err(store_status)? {
            None => self.write(store, run).map_err(store_status),
            Some(known) => refuse(run, known.differences(self)),
        }
    }

    /// The file of a run, if it was opened before.
    pub fn read(store: &RunStore, run: &str) -> Result<Option<Self>, CheckpointError> {
        store.fetch_file(run, Self::NAME)?;
        let path = store.run_dir(run).join(Self::NAME);
        let shown = || path.display().to_string();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| CheckpointError::Corrupt { path: shown(), problem: e.to_string() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Io { path: shown(), source }),
        }
    }

    fn write(&self, store: &RunStore, run: &str) -> Result<(), CheckpointError> {
        let bytes = serde_json::to_vec_pretty(self).expect("plain data");
        store.write_file(run, Self::NAME, &bytes)
    }

    /// What differs from how the edge opens the run now.
    pub fn differences(&self, edge: &RunFile) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |what: &str, edge: &dyn ToString, run: &dyn ToString| {
            let (edge, run) = (edge.to_string(), run.to_string());
            if edge != run {
                lines.push(format!("{what}: edge has {edge}, the run has {run}"));
            }
        };
        compare("model spec hash", &edge.spec_hash, &self.spec_hash);
        compare("split point", &edge.split_point, &self.split_point);
        let shown = |last: &Option<usize>| last.map_or("none".into(), |last| last.to_string());
        compare("last_split", &shown(&edge.last_split), &shown(&self.last_split));
        compare("initial weights", &edge.weights, &self.weights);
        compare("training spec", &edge.training, &self.training);
        compare("activation codec", &edge.activation_codec, &self.activation_codec);
        compare("gradient codec", &edge.gradient_codec, &self.gradient_codec);
        lines
    }
}

/// FAILED_PRECONDITION with what a run that exists differs in; nothing if that is nothing.
pub fn refuse(run: &str, differences: Vec<String>) -> Result<(), Status> {
    match differences.is_empty() {
        true => Ok(()),
        false => {
            let lines = differences.join("; ");
            Err(Status::failed_precondition(format!("run {run} exists and differs: {lines}")))
        }
    }
}
