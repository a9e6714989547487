//! Recorded or generated rates over time, so that an experiment runs on a network
//! that changes as a real one does, and another group can run it again.
//!
//! * [`Curve`] is one direction: a piecewise-constant rate, looked up at any instant.
//! * [`Trace`] is both directions and, where it was measured, the round trip.
//! * `csv` and `mahimahi` read and write the two file formats.
//!
//! Files come from strangers: every one is bounded, checked line by line, and refused
//! with one line, `FILE:LINE: what; what to do` ([`TraceError`]).

mod csv;
mod curve;
mod error;
mod file;
mod lap;
mod mahimahi;
mod series;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

pub use curve::{Curve, MAX_RATE_BPS, MAX_TIME_NS, Span};
pub use error::TraceError;
pub use file::MAX_FILE_BYTES;
pub use lap::AtEnd;
pub use series::Series;

/// How a network's rates went over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// For tables and logs; a file's is its name without the extension.
    pub name: String,
    /// Edge to cloud.
    pub uplink: Arc<Curve>,
    /// Cloud to edge.
    pub downlink: Arc<Curve>,
    /// Round trip of a small packet on the idle link, ms, where the trace has one.
    pub rtt: Option<Series>,
}

impl Trace {
    /// Reads a CSV file; see [`Trace::parse_csv`].
    pub fn read_csv(path: &Path, at_end: AtEnd) -> Result<Trace, TraceError> {
        let mut trace = csv::parse(&path.display().to_string(), &file::read(path)?, at_end)?;
        trace.name = file::stem(path);
        Ok(trace)
    }

    /// Reads `time_s,uplink_bps,downlink_bps,rtt_ms` (or `time_ms`; `rtt_ms` may be left
    /// out, or a field of it be empty: the value before holds). `name` stands for the file
    /// in errors.
    ///
    /// A row holds until the next. The last one lasts as long as the one before it (1 s
    /// when there is no other) and then the trace loops, or its values hold.
    pub fn parse_csv(name: &str, text: &str, at_end: AtEnd) -> Result<Trace, TraceError> {
        csv::parse(name, text, at_end)
    }

    /// Writes what [`Trace::parse_csv`] reads back as an equal trace. A comment (`# …`) may
    /// be written before it. Refused when the directions differ in length: a row has both.
    pub fn write_csv(&self, out: impl Write) -> Result<(), TraceError> {
        csv::write(self, out)
    }

    /// Reads a pair of Mahimahi packet-delivery traces, one opportunity of 1500 bytes per
    /// line; each direction loops by its own length.
    pub fn read_mahimahi(up: &Path, down: &Path, at_end: AtEnd) -> Result<Trace, TraceError> {
        let read = |path: &Path| {
            let text = file::read(path)?;
            mahimahi::parse(&path.display().to_string(), &text, at_end).map(Arc::new)
        };
        Ok(Trace { name: file::stem(up), uplink: read(up)?, downlink: read(down)?, rtt: None })
    }

    /// Writes one lap as a pair of Mahimahi traces, within 1500 bytes of the curve at every
    /// whole ms. The round trip is lost: the format has none.
    pub fn write_mahimahi(&self, up: impl Write, down: impl Write) -> Result<(), TraceError> {
        mahimahi::write(&self.name, &self.uplink, up)?;
        mahimahi::write(&self.name, &self.downlink, down)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_read_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walk.csv");
        fs::write(&path, "time_s,uplink_bps,downlink_bps,rtt_ms\n0,8,16,\n").unwrap();
        let trace = Trace::read_csv(&path, AtEnd::Hold).unwrap();
        assert_eq!((trace.name.as_str(), trace.rtt), ("walk", None));
        let (up, down) = (folder.path().join("lte.up"), folder.path().join("lte.down"));
        fs::write(&up, "1\n").unwrap();
        fs::write(&down, "1\n2\n2\n").unwrap();
        let trace = Trace::read_mahimahi(&up, &down, AtEnd::Loop).unwrap();
        assert_eq!((trace.name.as_str(), trace.downlink.mean_bps()), ("lte", 18e6));
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let refused = || Trace::read_csv(&path, AtEnd::Loop).unwrap_err().to_string();
        assert!(refused().contains("t.csv: cannot be read"), "{}", refused());
        fs::write(&path, b"time_s,uplink_bps\n\xff").unwrap();
        assert!(refused().contains("t.csv:2: not UTF-8"), "{}", refused());
        fs::File::create(&path).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(refused().contains("t.csv: larger than 256 MiB; cut"), "{}", refused());
        let folder = Trace::read_csv(folder.path(), AtEnd::Loop).unwrap_err();
        assert!(folder.what.contains("cannot be read"), "{folder}");
    }
}
