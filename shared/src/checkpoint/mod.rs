//! Weights and optimiser state on disk, one folder a step, one file a stage.
//!
//! ```text
//! <dir>/<run>/step-00000500/manifest.json       stages, and the SHA-256 of every file
//!                           conv1.safetensors   weights, by the names of the model's file
//!                           conv1.optimizer     optimiser state, as burn serialises it
//!             pinned                            the step that is deployed, which is not removed
//! ```
//!
//! A run of LoRA adapters has these alone in its files, and in the manifest the weights that they
//! belong to.
//!
//! A stage is a file so that a split point that moves takes whole files along. A step's folder is
//! written under a temporary name and renamed, so that it is there completely or not at all; each
//! node keeps its own half, and the newest step that both hold is where training resumes. With
//! `runs.store` every step is copied to a bucket or folder as well, and fetched from there by a node
//! that lost its disk ([`copies`]).

mod atomic;
mod copies;
mod library;
mod manifest;
pub mod peft;
mod store;
mod tensors;
mod training;
mod travel;
mod weights_id;

pub use self::{
    atomic::{write_atomic, write_atomic_as},
    copies::check_url,
    library::{Library, LibraryError},
    manifest::AdapterBase,
    store::{RunStore, StageFiles},
    tensors::{Labels, read_labelled, write_labelled, write_weights},
    training::TrainingRun,
    travel::{build_half, named_weights, pack, unpack, with_weights},
    weights_id::{WeightsId, check_run_id},
};

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
    #[error("{path}: {problem}")]
    Corrupt { path: String, problem: String },
    #[error("{0:?} is not a run id: 1 to 64 letters, digits, '-' and '_' are allowed")]
    RunId(String),
    #[error("{0:?} is not a weights id: expected seed:NUMBER, file:FINGERPRINT or run:ID:STEP")]
    WeightsId(String),
}
