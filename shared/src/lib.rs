//! What Cleave's edge and cloud nodes must agree on.
//!
//! A tensor's walk through this crate: [`model`] computes an activation, [`tensor`] is that
//! activation as bytes, [`codec`] encodes it, [`wire`] says it in protobuf, [`link`] delays it as a
//! 5G radio would. [`session`] is the state machine of exactly-once training, [`checkpoint`] how
//! its state reaches the disk. Dependencies point from `model` and `wire` down to `tensor`.

pub mod codec;
pub mod compute;
pub mod health;
pub mod model;
pub mod telemetry;
pub mod tensor;
pub mod wire;
