//! What the exits of a set of weights are worth, at each threshold.

use std::{fmt::Write, fs};

use cleave_shared::{checkpoint::write_atomic, config::Config, data::Part};
use serde::Serialize;

use super::{
    cascade::{Judged, Row, accuracy, cascade},
    samples::Samples,
    stored::stored,
};
use crate::{chosen::Chosen, deploy::folder_of};

const THRESHOLDS: [f64; 7] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99];

/// One exit by itself.
#[derive(Debug, Clone, Serialize)]
pub struct Alone {
    pub stage: String,
    pub after: usize,
    /// If it answered for all samples.
    pub accuracy: f64,
}

/// All exits, measured on a part of the data.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub weights: String,
    pub part: Part,
    pub samples: usize,
    /// Of the model without exits.
    pub accuracy: f64,
    pub exits: Vec<Alone>,
    pub thresholds: Vec<Row>,
}

/// Measures all exits of these weights, whatever the split point, and keeps the report beside them.
pub async fn report(config: &Config, run: Option<&str>, part: Part) -> Result<Report, String> {
    let chosen = Chosen::open(config, run)?;
    let exits = stored(&chosen.config, &chosen.weights, chosen.config.model.stage_count())?;
    let places: Vec<usize> = exits.iter().map(|exit| exit.after).collect();
    let samples = Samples::collect(&chosen, &places, part).await?;
    let labels = &samples.labels;
    let all: Vec<usize> = (0..labels.len()).collect();
    let mut judged = Vec::new();
    for (exit, features) in exits.iter().zip(&samples.features) {
        let logits = exit.head.forward(features.tensor(&all, &burn::tensor::Device::flex()));
        let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let rows = values.chunks_exact(samples.uncut.width).zip(labels);
        judged.push(rows.map(|(row, &label)| Judged::of(row, label)).collect::<Vec<_>>());
    }
    let uncut = samples.uncut.iter().zip(labels).map(|(row, &label)| Judged::of(row, label));
    let uncut: Vec<Judged> = uncut.collect();
    let alone = exits.iter().zip(&judged).map(|(exit, judged)| Alone {
        stage: exit.stage.clone(),
        after: exit.after,
        accuracy: accuracy(judged),
    });
    let report = Report {
        weights: chosen.weights.to_string(),
        part,
        samples: labels.len(),
        accuracy: accuracy(&uncut),
        exits: alone.collect(),
        thresholds: THRESHOLDS.map(|threshold| cascade(&judged, &uncut, threshold)).to_vec(),
    };
    let folder = folder_of(&chosen.config.runs.dir, &chosen.weights);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let path = folder.join(format!("exits-{}.json", part.name()));
    write_atomic(&path, report.json().as_bytes()).map_err(|e| e.to_string())?;
    Ok(report)
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }

    pub fn render(&self) -> String {
        let Self { weights, samples, accuracy, exits, thresholds, .. } = self;
        let part = self.part.name();
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let mut text = format!("{weights}, {samples} samples for {part}, accuracy:\n");
        for Alone { stage, after, accuracy } in exits {
            let _ = writeln!(text, "  exit behind {stage} ({after})  {}", percent(*accuracy));
        }
        let _ = writeln!(text, "  without exits  {}\n", percent(*accuracy));
        let _ = write!(text, "  {:>9}", "threshold");
        for exit in exits {
            let _ = write!(text, " {:>13}", format!("at {}", exit.stage));
        }
        let _ = writeln!(text, " {:>13} {:>13} {:>13}", "to the end", "their right", "all right");
        for Row { threshold, left, accuracy, accuracy_of_left } in thresholds {
            let _ = write!(text, "  {threshold:>9}");
            for &share in left {
                let _ = write!(text, " {:>13}", percent(share));
            }
            let rest = percent(1.0 - left.iter().sum::<f64>());
            let of_left = accuracy_of_left.map_or("-".into(), percent);
            let _ = writeln!(text, " {rest:>13} {of_left:>13} {:>13}", percent(*accuracy));
        }
        text
    }
}
