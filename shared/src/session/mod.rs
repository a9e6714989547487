//! Exactly-once training steps, as pure state machines.
//!
//! Edge and cloud each hold half of a model, and a step is only a step if both halves take it. A step is
//! prepared: the cloud adds up the gradients of its micro-batches and changes nothing. The edge, which has
//! all of it then, commits its half, and tells the cloud to commit its own. Whatever is lost in between,
//! the two are never more than that one commit apart: a [`Ledger`] knows what was prepared and refuses to
//! commit twice, and [`agree`] finds where both continue after either of them was restarted.

mod clip;
mod ledger;
mod resume;
mod retention;
mod schedule;
mod training;

pub use self::{
    clip::clip_scale,
    ledger::{Commitment, Ledger, OutOfOrder, Place},
    resume::{Holdings, Resume, Source, agree},
    retention::outdated,
    schedule::{Schedule, Shape},
    training::TrainingSpec,
};
