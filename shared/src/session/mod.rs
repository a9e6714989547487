//! Exactly-once training steps, as pure state machines.
//!
//! Edge and cloud each hold half of a model, and a step is only a step if both halves take it. The
//! edge sends step `n`; the cloud applies it, remembers the reply, answers; the edge applies it.
//! Whatever is lost in between, the two are never more than one step apart: [`Ledger`] answers a
//! step that was already applied from memory instead of applying it twice, and [`agree`] finds
//! where both continue after either of them was restarted.

mod ledger;
mod resume;
mod training;

pub use self::{
    ledger::{Admission, Ledger, OutOfOrder},
    resume::{Holdings, Resume, Source, agree},
    training::TrainingSpec,
};
