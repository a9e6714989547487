//! `edge-node link`: the simulated link for any program, and its picture.
//!
//! * [`proxy`] puts the link between two programs that know nothing of it.
//! * [`edges`] says which connections belong to which edge of a cell.
//! * [`admin`] shows metrics and switches the profile while it runs.
//! * [`record`] samples the link over time, [`plot`] draws that.
//! * [`simulate`] does without connections: a saturated link in virtual time.

pub mod admin;
pub mod edges;
pub mod plot;
pub mod proxy;
pub mod record;
pub mod simulate;
