//! What this node's failure to find weights is called in gRPC.

use cleave_shared::checkpoint::{CheckpointError, LibraryError};
use tonic::Status;

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

pub fn library_status(error: LibraryError) -> Status {
    match error {
        LibraryError::Checkpoint(error) => store_status(error),
        LibraryError::Missing { .. } => Status::not_found(error.to_string()),
        LibraryError::OtherFile { .. } => Status::failed_precondition(error.to_string()),
        LibraryError::Model(error) => crate::service::model_status(error),
        LibraryError::File(_) => Status::internal(error.to_string()),
    }
}
