//! What a recording means after its end.

use serde::{Deserialize, Serialize};

/// What comes after the last row of a trace, because a run may outlast the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtEnd {
    /// The recording starts again from its beginning.
    Loop,
    /// The last row holds for ever.
    Hold,
}

/// Folds any instant into the stretch that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lap {
    /// Length of the recording, ns; not 0.
    pub(super) length_ns: u64,
    pub(super) at_end: AtEnd,
}

impl Lap {
    /// When the lap that `t_ns` falls in began, and how far into it that is, ns.
    pub(super) fn fold(self, t_ns: u64) -> (u64, u64) {
        match self.at_end {
            AtEnd::Loop => (t_ns - t_ns % self.length_ns, t_ns % self.length_ns),
            AtEnd::Hold => (0, t_ns),
        }
    }
}
