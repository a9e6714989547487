//! SplitFed v2 (Thapa et al. 2022): one tail takes the batches of a step one after the other, an update
//! each, while the edges' heads learn side by side; the round's end averages the heads.
//!
//! The paper's server takes the edges in a random order. Here it is the order of their numbers, so that a
//! run can be repeated.

use super::strategy::{Heads, Pace, Strategy};

pub struct SplitFedV2;

impl Strategy for SplitFedV2 {
    fn pace(&self) -> Pace {
        Pace::InStep
    }

    fn heads(&self) -> Heads {
        Heads::Averaged
    }
}
