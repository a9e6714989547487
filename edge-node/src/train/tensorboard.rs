//! The same figures as `metrics.jsonl` for TensorBoard: `events.out.tfevents.*` in the run's folder.
//!
//! A file is a row of TFRecords, each an `Event` message. A process writes a file of its own; what
//! comes after a step that the run went back to is taken back as TensorFlow does it, with an event
//! that says that the session starts at the next step.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;

use super::{Line, Score};

const PREFIX: &str = "events.out.tfevents.";
/// From this version on, readers look for session starts.
const VERSION: &str = "brain.Event:2";

/// `tensorboard.Event`, without what is not written here.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// `tensorboard.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `tensorboard.Summary.Value` with a scalar in it.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// In a `oneof`, so that 0 is written as well.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorboard.SessionLog`.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(enumeration = "SessionStatus", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum SessionStatus {
    Unspecified = 0,
    Start = 1,
}

/// The file of one process.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file, which sorts behind those that are in the folder: readers go by the name.
    pub fn create(dir: &Path) -> Result<Self, String> {
        let path = dir.join(format!("{PREFIX}{:010}.cleave", free_second(dir)));
        let opened = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = opened.map_err(|e| format!("{}: {e}", path.display()))?;
        let mut events = Self { path, file };
        events.append(0, What::FileVersion(VERSION.into()))?;
        Ok(events)
    }

    pub fn write(&mut self, line: &Line) -> Result<(), String> {
        let (step, scalars) = scalars(line);
        let value = |(tag, value)| Scalar { tag, simple_value: Some(value as f32) };
        let summary = Summary { value: scalars.into_iter().map(value).collect() };
        self.append(step, What::Summary(summary))
    }

    /// Takes back all after `step`, whichever process wrote it.
    pub fn rewind(&mut self, step: u64) -> Result<(), String> {
        let status = SessionStatus::Start.into();
        self.append(step + 1, What::SessionLog(SessionLog { status }))
    }

    fn append(&mut self, step: u64, what: What) -> Result<(), String> {
        let event = Event { wall_time: now(), step: step as i64, what: Some(what) };
        // One write a record: a kill leaves whole records, or one cut short that readers skip.
        let written = self.file.write_all(&record(&event.encode_to_vec()));
        written.map_err(|e| format!("{}: {e}", self.path.display()))
    }
}

/// What a line says, by TensorBoard's names.
fn scalars(line: &Line) -> (u64, Vec<(String, f64)>) {
    let part = |part: &str, loss: f64, score: &Score| {
        let figures = [
            ("loss", Some(loss)),
            ("accuracy", score.accuracy),
            ("perplexity", score.perplexity),
            ("rmse", score.rmse),
            ("r2", score.r2),
        ];
        let named =
            figures.into_iter().filter_map(|(name, v)| Some((format!("{part}/{name}"), v?)));
        named.collect::<Vec<_>>()
    };
    match line {
        Line::Validation(v) => (v.step, part("validation", v.loss, &v.score)),
        Line::Step(s) => {
            let mut all = part("train", s.loss.into(), &s.score);
            let more = [
                ("train/learning_rate", Some(s.learning_rate)),
                ("train/gradient_norm", s.gradient_norm),
                ("link/uplink_bytes", Some(s.uplink_bytes as f64)),
                ("link/downlink_bytes", Some(s.downlink_bytes as f64)),
                ("speed/steps_per_s", Some(s.steps_per_s())),
                ("speed/overlap", s.overlap),
            ];
            all.extend(more.into_iter().filter_map(|(name, v)| Some((name.to_string(), v?))));
            (s.step, all)
        }
    }
}

/// A TFRecord: length, its checksum, the bytes, their checksum; little-endian.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked_crc(bytes).to_le_bytes());
    record
}

/// TFRecord's checksum: CRC-32C, rotated and shifted so that the checksum of bytes that hold
/// checksums is no special case.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// This second, or the one after the newest file's.
fn free_second(dir: &Path) -> u64 {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
    let second = |name: std::ffi::OsString| {
        name.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok()
    };
    let after_newest = names.filter_map(second).max().map_or(0, |newest| newest + 1);
    after_newest.max(now() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_tensorflow() {
        // What tensorboard.summary.writer.record_writer writes.
        let expected = b"\x03\0\0\0\0\0\0\0\xb0\x99\x49\x0eabc\x6e\x57\xf1\x21";
        assert_eq!(record(b"abc"), expected);
    }

    #[test]
    fn each_process_has_a_file_behind_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let name = |events: &EventFile| events.path.clone();
        let files: Vec<PathBuf> =
            (0..3).map(|_| name(&EventFile::create(dir.path()).unwrap())).collect();
        assert!(files.is_sorted() && files[0] < files[1] && files[1] < files[2], "{files:?}");
    }
}
