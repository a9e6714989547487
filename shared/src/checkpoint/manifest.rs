//! What a step's folder says of itself: which files are whole, and what its adapters belong to.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CheckpointError, atomic::io_error};

/// Its name in the folder; without it the folder is no checkpoint.
pub const MANIFEST: &str = "manifest.json";

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// SHA-256 of each file, in hex, by name.
    pub files: BTreeMap<String, String>,
    /// Present if the files have adapters only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<AdapterBase>,
}

impl Manifest {
    /// Of the step in this folder, if it has one.
    pub fn read(dir: &Path) -> Result<Option<Self>, CheckpointError> {
        let path = dir.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&path, e)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| corrupt(&path, e))
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a manifest is plain data")
    }

    /// Adds a file with this content.
    pub fn add(&mut self, name: String, bytes: &[u8]) {
        self.files.insert(name, digest(bytes));
    }

    /// A file of this folder; an error if it is not what was written.
    pub fn read_file(&self, dir: &Path, name: &str) -> Result<Vec<u8>, CheckpointError> {
        let path = dir.join(name);
        let Some(expected) = self.files.get(name) else {
            return Err(corrupt(&path, "is not in this checkpoint"));
        };
        let bytes = fs::read(&path).map_err(|e| io_error(&path, e))?;
        let found = digest(&bytes);
        if found == *expected {
            return Ok(bytes);
        }
        Err(corrupt(&path, format!("SHA-256 is {found}, the manifest has {expected}")))
    }
}

/// What the adapters of a run are added to; see [`crate::model::LoraSpec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterBase {
    /// Weights id: `seed:` or `file:`.
    pub weights: String,
    /// How much they count, `alpha / rank`.
    pub scale: f64,
}

impl AdapterBase {
    /// As it is sent to the peer.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// Reads [`AdapterBase::to_json`]; none from an empty text.
    pub fn from_json(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(text).map(Some).map_err(|e| format!("base of adapters: {e}"))
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// What is wrong with a file.
pub fn corrupt(path: &Path, problem: impl ToString) -> CheckpointError {
    CheckpointError::Corrupt { path: path.display().to_string(), problem: problem.to_string() }
}
