//! A run that is asked to end: it does so between two steps, with a checkpoint.

use cleave_shared::shutdown::Ending;

pub struct Interruption {
    ending: Ending,
    noticed: bool,
}

impl Interruption {
    pub fn by(ending: Ending) -> Self {
        Self { ending, noticed: false }
    }

    /// Whether the run is asked to end, from here on noticed.
    pub fn look(&mut self) -> bool {
        self.noticed |= self.ending.is_asked();
        self.noticed
    }

    /// Whether it has been noticed. A run that comes to its end without looking again is not interrupted.
    pub fn is_noticed(&self) -> bool {
        self.noticed
    }

    /// Completes when the run is asked to end.
    pub async fn asked(&self) {
        self.ending.asked().await;
    }
}
