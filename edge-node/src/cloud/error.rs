//! A failed call in one line that says what to do.

use std::error::Error;

use tonic::{Code, Status};

/// Says which cloud did not do what.
pub fn explain(address: &str, status: &Status) -> String {
    match status.code() {
        Code::Unavailable => {
            let cause = root_cause(status);
            format!("the cloud at {address} does not answer ({cause}); start it or set edge.cloud")
        }
        Code::Unimplemented => {
            format!("{address} is not a Cleave cloud node: {}", status.message())
        }
        _ => format!("the cloud at {address} answered: {}", status.message()),
    }
}

/// The innermost cause: `Connection refused` rather than `transport error`.
fn root_cause(status: &Status) -> String {
    let mut cause: Option<&dyn Error> = status.source();
    let mut text = status.message().to_string();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}
