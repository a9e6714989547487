//! Keeps the choice right while the edge serves: `split_point = "auto"`.
//!
//! [`ObserveLayer`] sees every call to the cloud ([`Seen`]). [`Adapter`] learns from them and from its own [`probes`]
//! what the link and the cloud's load are ([`belief`]), plans anew, and when another choice is worth it says so; what becomes of that is
//! the reconfigurer's business, as with a split point that a person changes. Choices that a change of
//! the link would make the best are named as well, to be made ready in the background.

mod adapter;
mod belief;
mod observe;
mod probes;
mod seen;

pub use self::{
    adapter::{Adapter, Planned},
    observe::{Observe, ObserveLayer},
    seen::{Call, Event, HeadRun, Seen, UnderWay},
};
