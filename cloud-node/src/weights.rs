//! Weights by id: from a seed, or from the checkpoints of this node.

use cleave_shared::{
    checkpoint::{CheckpointError, RunStore, WeightsId},
    model::{LoadedWeights, SeededWeights, Weights},
    wire::NamedTensors,
};
use tonic::Status;

/// A source of the weights of these stages.
pub fn source(
    store: &RunStore,
    id: &WeightsId,
    stages: &[String],
) -> Result<Box<dyn Weights>, Status> {
    match id {
        WeightsId::Seed(seed) => Ok(Box::new(SeededWeights(*seed))),
        WeightsId::Run { .. } => Ok(Box::new(LoadedWeights::new(stored(store, id, stages)?))),
    }
}

/// The stages among `stages` whose weights are not here.
pub fn missing(store: &RunStore, id: &WeightsId, stages: &[String]) -> Result<Vec<String>, Status> {
    let WeightsId::Run { run, step } = id else { return Ok(Vec::new()) };
    let here = store.stages(run, *step).map_err(store_status)?;
    Ok(stages.iter().filter(|s| !here.contains(*s)).cloned().collect())
}

/// Weights of these stages from a checkpoint; NOT_FOUND names those that are not here.
pub fn stored(store: &RunStore, id: &WeightsId, stages: &[String]) -> Result<NamedTensors, Status> {
    let WeightsId::Run { run, step } = id else {
        return Err(Status::invalid_argument(format!("{id} is not stored: it comes from a seed")));
    };
    let absent = missing(store, id, stages)?;
    if !absent.is_empty() {
        let absent = absent.join(", ");
        return Err(Status::not_found(format!("{id}: the cloud has no weights of {absent}")));
    }
    let mut all = NamedTensors::new();
    for stage in stages {
        all.extend(store.read(run, *step, stage).map_err(store_status)?.weights);
    }
    Ok(all)
}

/// A client may have sent a bad name; everything else is this node's disk.
pub fn store_status(error: CheckpointError) -> Status {
    match error {
        CheckpointError::RunId(_) | CheckpointError::WeightsId(_) => {
            Status::invalid_argument(error.to_string())
        }
        CheckpointError::Io { .. } | CheckpointError::Corrupt { .. } => {
            Status::internal(format!("checkpoint: {error}"))
        }
    }
}
