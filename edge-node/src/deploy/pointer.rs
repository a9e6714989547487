//! The note of which weights are deployed: `<runs>/edge/deployed.json`.
//!
//! Training writes it, a running edge watches it; both may be different processes or containers
//! that share the folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cleave_shared::checkpoint::{CheckpointError, WeightsId, write_atomic};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    pub run: String,
    pub step: u64,
    /// The model that the weights are of.
    pub spec_hash: String,
}

impl Pointer {
    /// Where it is, under the runs folder.
    pub fn path(runs: &Path) -> PathBuf {
        runs.join("edge").join("deployed.json")
    }

    /// The pointer; none if nothing was deployed yet.
    pub fn read(runs: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = Self::path(runs);
        let shown = || path.display().to_string();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| CheckpointError::Corrupt { path: shown(), problem: e.to_string() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Io { path: shown(), source }),
        }
    }

    pub fn write(&self, runs: &Path) -> Result<(), CheckpointError> {
        let path = Self::path(runs);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| CheckpointError::Io {
                path: folder.display().to_string(),
                source,
            })?;
        }
        write_atomic(&path, &serde_json::to_vec_pretty(self).expect("plain data"))
    }

    pub fn weights(&self) -> WeightsId {
        WeightsId::Run { run: self.run.clone(), step: self.step }
    }
}
