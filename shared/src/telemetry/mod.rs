//! One way to log, to show metrics and to send traces, on both nodes.

pub mod log;
pub mod metrics;
mod process;
pub mod trace;

pub use self::log::{LogFormat, init};
