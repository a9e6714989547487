//! Where to cut: predicts every split point with every codec, and chooses.
//!
//! [`measured`] is what both nodes measured, [`costs`] what that makes of each cut, [`network`] what a
//! transfer takes, [`estimate`] what was learned about the network since, by a model of its [`path`].
//! [`search`] predicts all choices and takes the best that is allowed, [`training`] the same for a step and
//! its micro-batches, [`graph`] for models that are no chain. [`steady`] decides when a better choice is worth a switch.
//! [`explain`] does all that for a command, [`table`] and [`picture`] show it.
//!
//! The formulation is Neurosurgeon's (Kang et al., ASPLOS 2017) with codecs and limits added; DAGs are
//! cut as DADS does (Hu et al., INFOCOM 2019).

mod costs;
mod estimate;
mod explain;
mod graph;
mod measured;
mod network;
mod path;
mod picture;
mod search;
mod steady;
mod table;
mod training;

pub use self::{
    costs::{Costs, Crossing},
    estimate::{Estimate, Observation},
    explain::{Explained, Grounds, explained, grounds, grounds_of, settle, settle_step},
    graph::{Graph, Partition},
    measured::{Accuracy, HostCost, Measured},
    network::{Curve, Network},
    picture::{reach, svg},
    search::{Limits, Plan, Predicted, plan},
    steady::Steady,
    table::{Row, render},
    training::{StepPlan, plan_step},
};

/// What the planner decides about a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Stages on the edge.
    pub split: usize,
    /// Codec of the activation; none where nothing crosses.
    pub codec: Option<String>,
}
