//! SplitFed v1 (Thapa et al. 2022): every edge learns with a tail of its own, all begin a round with the
//! same halves, and the round's end averages heads and tails, weighted by samples: FedAvg of a split
//! model.

use super::strategy::{Heads, Pace, Strategy};

pub struct SplitFedV1;

impl Strategy for SplitFedV1 {
    fn pace(&self) -> Pace {
        Pace::Alone
    }

    fn heads(&self) -> Heads {
        Heads::Averaged
    }

    fn own_tails(&self) -> bool {
        true
    }
}
