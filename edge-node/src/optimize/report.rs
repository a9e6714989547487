//! The table of a model before and after.

use indicatif::HumanBytes;
use serde::Serialize;

/// One model, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// What was done to it.
    pub model: String,
    /// Bytes that its weights take in memory.
    pub weight_bytes: usize,
    /// Parameters, and how many of them are zero.
    pub parameters: usize,
    pub zeros: usize,
    /// Median time of one sample through the whole model on this machine, ms.
    pub p50_ms: f64,
    /// Held-out samples that were classified right, of how many.
    pub correct: u64,
    pub samples: usize,
}

/// Models side by side, the original first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The weights that all are made from.
    pub weights: String,
    pub models: Vec<Figures>,
}

impl Report {
    /// The rows, with a header.
    pub fn render(&self) -> String {
        let mut text = format!(
            "{}\n  {:<16} {:>12} {:>11} {:>8} {:>9} {:>10}\n",
            self.weights, "model", "weights", "parameters", "zeros", "p50 ms", "accuracy"
        );
        for row in &self.models {
            let share =
                |part: f64, all: usize| format!("{:.2} %", part * 100.0 / all.max(1) as f64);
            let zeros = share(row.zeros as f64, row.parameters);
            let accuracy = share(row.correct as f64, row.samples);
            let bytes = HumanBytes(row.weight_bytes as u64).to_string();
            text += &format!(
                "  {:<16} {bytes:>12} {:>11} {zeros:>8} {:>9.3} {accuracy:>10}\n",
                row.model, row.parameters, row.p50_ms
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_model() {
        let row = |model: &str, weight_bytes| Figures {
            model: model.into(),
            weight_bytes,
            parameters: 200,
            zeros: 50,
            p50_ms: 0.125,
            correct: 3,
            samples: 4,
        };
        let models = vec![row("as it is", 2048), row("int8", 512)];
        let text = Report { weights: "seed:7".into(), models }.render();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        for part in ["int8", "512 B", "200", "25.00 %", "0.125", "75.00 %"] {
            assert!(lines[3].contains(part), "{part}: {text}");
        }
    }
}
