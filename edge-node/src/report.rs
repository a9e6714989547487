//! Latency percentiles as a table for a terminal.

use crate::serve::Timing;

/// Samples of one column, ms.
#[derive(Debug, Default, Clone)]
pub struct Column(Vec<f64>);

impl Column {
    pub fn add(&mut self, ms: f64) {
        self.0.push(ms);
    }

    /// The value that a share `p` of the samples does not exceed (nearest rank).
    pub fn percentile(&self, p: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (p * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
    }
}

/// Times of many requests, by the part of the way that they were spent on.
#[derive(Debug, Default)]
pub struct LatencyTable {
    parts: [Column; 6],
    total: Column,
}

impl LatencyTable {
    /// One request: its parts as the edge reported them, and the client's time for all of it.
    pub fn add(&mut self, timing: &Timing, total_ms: f64) {
        for (column, (_, value)) in self.parts.iter_mut().zip(timing.parameters()) {
            column.add(value);
        }
        self.total.add(total_ms);
    }

    /// Percentiles of each part by its name, ms.
    pub fn json(&self) -> serde_json::Value {
        let of = |c: &Column| {
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|p| c.percentile(p));
            serde_json::json!({ "p50": p50, "p95": p95, "p99": p99 })
        };
        let names = Timing::default().parameters().map(|(name, _)| name.to_string());
        let parts = names.into_iter().zip(self.parts.iter().map(of));
        serde_json::Value::Object(parts.chain([("total_ms".into(), of(&self.total))]).collect())
    }

    /// The rows, with a header.
    pub fn render(&self) -> String {
        let names = Timing::default().parameters().map(|(name, _)| name.trim_end_matches("_ms"));
        let row = |name: &str, c: &Column| {
            let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|p| c.percentile(p));
            format!("  {name:<10} {p50:>9.2} {p95:>9.2} {p99:>9.2}\n")
        };
        let mut text = format!("  {:<10} {:>9} {:>9} {:>9}\n", "ms", "p50", "p95", "p99");
        for (name, column) in names.iter().zip(&self.parts) {
            text += &row(name, column);
        }
        text + &row("in all", &self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let column = Column((1..=100).rev().map(f64::from).collect());
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|p| column.percentile(p)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(Column(vec![3.0]).percentile(0.5), 3.0);
        assert_eq!(Column::default().percentile(0.5), 0.0);
    }
}
