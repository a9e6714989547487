//! What is wrong with rows of collected data, counted by reason.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Rows that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dropped(BTreeMap<String, Reason>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reason {
    rows: usize,
    /// Where the first of them is.
    first: String,
}

impl Dropped {
    /// Leaves a row out; `place` is where it is, such as `line 7`.
    pub fn add(&mut self, reason: String, place: impl fmt::Display) {
        let first = Reason { rows: 0, first: place.to_string() };
        self.0.entry(reason).or_insert(first).rows += 1;
    }

    /// Rows left out for any reason.
    pub fn rows(&self) -> usize {
        self.0.values().map(|r| r.rows).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reason, rows, and where the first of them is.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, usize, &str)> {
        self.0.iter().map(|(reason, r)| (reason.as_str(), r.rows, r.first.as_str()))
    }

    pub fn merge(&mut self, other: Dropped) {
        for (reason, found) in other.0 {
            let known = self.0.entry(reason);
            let known = known.or_insert(Reason { rows: 0, first: found.first });
            known.rows += found.rows;
        }
    }
}
