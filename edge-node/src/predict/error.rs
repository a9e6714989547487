//! What a client is told when a part of its prediction fails.

use cleave_shared::{compute::ComputeError, model::ModelError};
use tower::BoxError;

use crate::{cloud::explain, serve::InferError};

pub fn compute_error(error: ComputeError) -> InferError {
    match error {
        ComputeError::Busy { .. } | ComputeError::Late { .. } => {
            InferError::Busy(error.to_string())
        }
        ComputeError::Panicked(_) => InferError::Internal(error.to_string()),
    }
}

/// What a stage refuses although it passed the checks of a request, such as a length that is longer
/// than its sample.
pub fn model_error(error: ModelError) -> InferError {
    match error {
        ModelError::Input { .. } => InferError::BadInput(error.to_string()),
        _ => InferError::Internal(error.to_string()),
    }
}

/// The cloud has not answered in time.
pub fn cloud_is_late(address: &str) -> InferError {
    InferError::Deadline(format!(
        "the cloud at {address} did not answer within edge.deadline_ms or the client's deadline"
    ))
}

/// Errors of the layers around the call, and of the call itself.
pub fn cloud_error(address: &str, error: BoxError) -> InferError {
    if error.is::<tower::load_shed::error::Overloaded>() {
        return InferError::Busy(
            "too many requests are on their way to the cloud; retry later".into(),
        );
    }
    if error.is::<tower::timeout::error::Elapsed>() {
        return cloud_is_late(address);
    }
    let Some(status) = error.downcast_ref::<tonic::Status>() else {
        return InferError::Internal(error.to_string());
    };
    status_error(address, status)
}

/// What a client is told when the cloud answers with this.
pub fn status_error(address: &str, status: &tonic::Status) -> InferError {
    let text = explain(address, status);
    match status.code() {
        tonic::Code::ResourceExhausted => InferError::Busy(text),
        tonic::Code::DeadlineExceeded => InferError::Deadline(text),
        // A connection that breaks in the middle of a call comes as one of these.
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
            InferError::Unavailable(text)
        }
        _ => InferError::Internal(text),
    }
}
