//! Cleave's cloud node: the tail of a split model, for many edges at once.
//!
//! [`stack`] is the picture of the server. An inference request walks `service` → `handshake` → `cut_ports` →
//! `tails` (the tail of that split point and those weights) → `batcher` (with what waits for the same
//! tail, edges in turn) → a compute thread, and back. A
//! training stream walks `train::stream` → `train::run` (one edge's tail, its ledger and its
//! checkpoints) → a compute thread, and back. Edges that learn one model together meet in `group`. A
//! generation stream walks `generate` (the caches of one sequence, the next token drawn from its
//! logits). The node keeps no state of an edge between two inference requests, so any replica can
//! answer any of them. `profile` measures this machine for the planner of an edge.

#![forbid(unsafe_code)]

mod batcher;
mod bottlenecks;
pub mod cli;
mod clock;
mod cut_ports;
mod doctor;
mod fair_queue;
mod generate;
mod group;
mod handshake;
mod inference;
mod profile;
mod service;
pub mod stack;
mod tails;
mod train;
mod weights;

pub use self::stack::serve;
