//! A plan as a table: each split point and codec, its predicted parts, and what was measured.

use std::fmt::Write;

use super::Predicted;
use crate::serve::Timing;

/// One choice.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    pub split_point: usize,
    /// The stage before the cut.
    pub after: String,
    pub codec: Option<String>,
    pub bytes: u64,
    #[serde(flatten)]
    pub timing: Timing,
    pub total_ms: f64,
    /// Median of real requests; none if they were not sent.
    pub measured_ms: Option<f64>,
    pub energy_mj: f64,
    pub cost: f64,
    pub chosen: bool,
    /// The limit that forbids it.
    pub forbidden: Option<String>,
}

impl Row {
    pub fn new(predicted: &Predicted, after: &str, chosen: bool) -> Self {
        Self {
            split_point: predicted.choice.split,
            after: after.into(),
            codec: predicted.choice.codec.clone(),
            bytes: predicted.bytes,
            timing: predicted.timing,
            total_ms: predicted.latency_ms(),
            measured_ms: None,
            energy_mj: predicted.energy_mj,
            cost: predicted.cost,
            chosen,
            forbidden: predicted.forbidden.clone(),
        }
    }

    /// How far the prediction is from what was measured, of what was measured.
    pub fn error(&self) -> Option<f64> {
        self.measured_ms.map(|measured| (self.total_ms - measured) / measured.max(1e-9))
    }

    /// Parts in the order of a request, ms.
    pub fn parts(&self) -> [(&'static str, f64); 6] {
        self.timing.parameters().map(|(name, ms)| (name.trim_end_matches("_ms"), ms))
    }
}

/// The table; `title` says of what.
pub fn render(title: &str, rows: &[Row]) -> String {
    let widest = rows.iter().map(|r| r.after.len()).max().unwrap_or(0).max(5);
    let mut text = format!("{title}\n\n");
    let _ = write!(text, "  cut  {:<widest$}  {:<11} {:>11}", "after", "codec", "bytes up");
    for part in ["head", "encode", "uplink", "tail", "downlink", "decode", "total ms", "measured"] {
        let _ = write!(text, " {part:>9}");
    }
    text.push_str("  energy mJ\n");
    for row in rows {
        let mark = if row.chosen { '*' } else { ' ' };
        let codec = row.codec.as_deref().unwrap_or("-");
        let (split, after, bytes) = (row.split_point, &row.after, row.bytes);
        let _ = write!(text, "{mark} {split:>3}  {after:<widest$}  {codec:<11} {bytes:>11}");
        for (_, ms) in row.parts() {
            // What rounds to nothing has no sign.
            let ms = if ms.abs() < 0.005 { 0.0 } else { ms };
            let _ = write!(text, " {ms:>9.2}");
        }
        let measured = row.measured_ms.map_or("-".into(), |ms| format!("{ms:.2}"));
        let _ = write!(text, " {:>9.2} {measured:>9}  {:>9.0}", row.total_ms, row.energy_mj);
        match &row.forbidden {
            Some(why) => drop(writeln!(text, "  not allowed: {why}")),
            None => text.push('\n'),
        }
    }
    text.push_str("\n* chosen\n");
    if let Some(error) = median_error(rows) {
        let _ = writeln!(text, "median absolute error of the predictions: {:.1} %", 100.0 * error);
    }
    text
}

fn median_error(rows: &[Row]) -> Option<f64> {
    let mut errors: Vec<f64> = rows.iter().filter_map(|r| Some(r.error()?.abs())).collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied()
}
