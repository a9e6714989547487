//! What Cleave's edge and cloud nodes must agree on.
//!
//! A tensor's walk through this crate: [`model`] computes an activation, [`tensor`] is that
//! activation as bytes, [`codec`] encodes it, [`wire`] says it in protobuf, [`link`] delays it as a
//! 5G radio would. [`session`] is the state machine of exactly-once training, [`checkpoint`] how
//! its state reaches the disk, [`privacy`] what is done to an activation before it is sent.
//! [`generate`] continues sequences of tokens, with a cache on each node. [`profile`] measures what all this
//! costs a machine. [`security`] is who may talk to whom. Dependencies point from `model` and `wire` down to `tensor`.

#![deny(unsafe_code)]

pub mod checkpoint;
pub mod codec;
pub mod compute;
pub mod config;
pub mod data;
pub mod deadline;
pub mod doctor;
pub mod generate;
pub mod health;
pub mod http2;
pub mod kept;
pub mod kernels;
pub mod link;
pub mod listen;
pub mod manual;
pub mod memory;
pub mod model;
pub mod privacy;
pub mod profile;
pub mod progress;
pub mod security;
pub mod session;
pub mod shutdown;
pub mod stamp;
pub mod telemetry;
pub mod tensor;
pub mod text;
pub mod timed;
pub mod wire;
