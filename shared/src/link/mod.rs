//! The simulated radio link between an edge and its cloud.
//!
//! A laptop reaches "the cloud" over loopback in microseconds; a phone does not. This module puts a
//! phone's network between the two without root, `tc` or a second machine: it wraps the edge's client
//! socket, inside the edge's process. What the edge writes goes *up*, what it reads came *down*.
//!
//! ```text
//!                       simulated network (pure, virtual time)
//!   caller ── write ──▶ uplink flow ─▶ queue ─ airtime ─ air ─▶ pump ── write ──▶ inner
//!   caller ◀── read ─── downlink flow ◀ air ─ airtime ─ queue ◀ pump ◀── read ─── stream
//!                                    ▲
//!                                    └ engine: lets events happen when they are due
//! ```
//!
//! * [`Profile`] says what the network is like: plain data from a file, with its sources.
//! * [`nr`] is 5G's arithmetic: slots, grants, rates. [`trace`] is rates over time, [`generate`] makes
//!   such traces.
//! * [`sim`] is the network itself, packet by packet: no I/O, no clock. [`WhatIf`] runs it alone.
//! * `engine` drives it on real time or on tokio's clock; [`Cell`] and [`Link`] are its handles.
//! * [`LinkStream`], [`LinkLayer`] and [`TcpConnector`] are what callers touch.
//!
//! `docs/link.md` has the model with its sources, and what is not simulated.

mod cell;
mod connect;
mod counters;
mod engine;
pub mod generate;
mod layer;
mod metrics;
pub mod nr;
pub mod profile;
mod pump;
pub mod sim;
mod stream;
pub mod trace;
mod whatif;

pub use cell::{Cell, Link};
pub use connect::TcpConnector;
pub use counters::LinkCounters;
pub use layer::{LinkConnector, LinkLayer};
pub use metrics::publish as publish_metrics;
pub use nr::Way;
pub use profile::{Direction, Jitter, Profile, ProfileError, Transport};
pub use sim::{DeviceId, DeviceStatus, LaneCounters, Scheduler};
pub use stream::LinkStream;
pub use whatif::{Connection, Transfer, WhatIf, mean_round_trip};
