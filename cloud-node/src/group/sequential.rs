//! Sequential split learning (Gupta & Raskar 2018): edge after edge learns with the one tail, and begins
//! with the head where the edge before it left off.
//!
//! What is learned is what one edge with all the data would learn, if it saw them in that order.

use super::strategy::{Heads, Pace, Strategy};

pub struct Sequential;

impl Strategy for Sequential {
    fn pace(&self) -> Pace {
        Pace::OneByOne
    }

    fn heads(&self) -> Heads {
        Heads::Travel
    }
}
