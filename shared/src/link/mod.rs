//! The simulated radio link between an edge and its cloud.
//!
//! A laptop reaches "the cloud" over loopback in microseconds; a phone does not.
//! This module puts a phone's network between the two without root, `tc` or a
//! second machine: it wraps the edge's client socket, inside the edge's process.
//! What the edge writes goes *up*, what it reads came *down*, and each direction
//! has its own rate, delay and jitter.
//!
//! ```text
//!            poll_write                     socket write
//!   caller ─────────────▶ Pipe ─▶ uplink pump ─────────▶ ┐
//!                                  │ Schedule (shared)   │ inner stream
//!   caller ◀───────────── Pipe ◀─ downlink pump ◀─────── ┘
//!            poll_read (due)                socket read
//! ```
//!
//! * [`Profile`] says what the network is like: plain data, with its source.
//! * [`Schedule`] says *when* each byte is through: pure arithmetic on a virtual
//!   clock. One per direction, shared by all connections of a [`Link`], because
//!   they share one radio.
//! * `Pipe` is the bounded queue of one direction of one connection; when it is
//!   full the caller is pushed back, as by a full socket buffer.
//! * The pumps move bytes at the scheduled instants, whoever polls or does not.
//! * `Clock` wakes them to within about 0.1 ms, where tokio's timers round up to
//!   whole milliseconds: too coarse for a link with a 6 ms round trip.
//! * [`LinkStream`], [`LinkLayer`] and [`TcpConnector`] are what callers touch.
//!
//! Not simulated: loss (it would show as delay above TCP anyway), the handshake's
//! round trip when a connection is opened, congestion-window growth, radio sleep.

mod clock;
mod connect;
mod counters;
mod layer;
mod pipe;
mod profile;
mod pump;
mod radio;
mod schedule;
mod stream;

pub use connect::TcpConnector;
pub use counters::LinkCounters;
pub use layer::{LinkConnector, LinkLayer};
pub use profile::{Direction, Profile};
pub use radio::Link;
pub use schedule::{Schedule, Slot};
pub use stream::LinkStream;
