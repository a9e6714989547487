//! The rest of the Open Inference Protocol, as Triton extends it: the model's configuration, statistics, the repository
//! (of one model), and trace and log settings.
//!
//! Reading is for everyone who may ask at all, changing for who has the admin token. [`Control`] is the seam to the rest of
//! the edge; `grpc` and `rest` translate; `config` and `settings` hold what both say.

mod config;
pub(super) mod grpc;
mod rest;
mod settings;
#[cfg(test)]
mod tests;

use http::HeaderMap;
use serde::Serialize;

pub use self::rest::control_router;
use super::{InferError, Refused};

/// The version that statistics name: they count all that the edge answered, whatever its weights. A number, as Triton's
/// versions are: Triton's perf_analyzer ends at anything else.
const STATISTICS_VERSION: &str = "1";

/// What clients may look at and change beside inference.
#[tonic::async_trait]
pub trait Control: Send + Sync + 'static {
    /// Of all inference requests since the edge began.
    fn statistics(&self) -> Statistics;

    /// Takes the newest configuration and weights into force, and answers requests from now on. If that cannot be, it says
    /// why, and everything stays as it was.
    async fn load(&self) -> Result<(), InferError>;

    /// Answers no request from now on.
    fn unload(&self);

    /// Whether who sent these headers may change something.
    fn may_change(&self, headers: &HeaderMap) -> Result<(), Refused>;
}

/// How often something was done, and how long it took all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Durations {
    pub count: u64,
    pub ns: u64,
}

/// What requests took, by Triton's names. The parts of those that succeeded add up to `success`: `compute_input` is encoding
/// and the uplink, `compute_infer` head and tail, `compute_output` the downlink and decoding, `queue` all else, which is
/// waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct InferenceStats {
    pub success: Durations,
    pub fail: Durations,
    pub queue: Durations,
    pub compute_input: Durations,
    pub compute_infer: Durations,
    pub compute_output: Durations,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// When the last request was answered, ms since 1970; 0 if none was.
    pub last_inference: u64,
    /// Samples answered.
    pub inference_count: u64,
    /// Requests answered: each runs the model once.
    pub execution_count: u64,
    pub inference_stats: InferenceStats,
}

/// Where a model is in the repository.
fn state(ready: bool) -> (&'static str, &'static str) {
    match ready {
        true => ("READY", ""),
        false => ("UNAVAILABLE", "unloaded, or nothing is deployed yet"),
    }
}

/// Parameters of loading that replace the configuration or files of the model have no meaning here.
fn check_load_parameters<'a>(mut keys: impl Iterator<Item = &'a str>) -> Result<(), InferError> {
    match keys.next() {
        None => Ok(()),
        Some(key) => Err(InferError::BadInput(format!(
            "the parameter {} cannot be given with a load; change the edge's configuration file instead",
            super::request::shown(key)
        ))),
    }
}
