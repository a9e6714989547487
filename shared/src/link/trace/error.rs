//! Why a trace was refused: where, what, and what to do about it.

use std::fmt::Display;

/// Characters of a bad field that are shown; a trace may be one line of 256 MiB.
const SHOWN_CHARS: usize = 40;

/// One line for whoever gave the file, so that it can be mended without reading this code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}; {remedy}")]
pub struct TraceError {
    /// `FILE:LINE`, or the file or trace alone where no line is to blame.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl TraceError {
    pub(in super::super) fn new(
        place: impl Display,
        what: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self { place: place.to_string(), what: what.to_string(), remedy: remedy.to_string() }
    }

    pub(super) fn at_line(
        file: &str,
        line: usize,
        what: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self::new(format_args!("{file}:{line}"), what, remedy)
    }
}

/// A field as it is shown in an error: quoted, printable and short.
pub(super) fn excerpt(field: &str) -> String {
    let mut shown: String = field.chars().take(SHOWN_CHARS).collect();
    if shown.len() < field.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
