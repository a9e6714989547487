//! How good a model is, in the terms of its task: accuracy for classes, perplexity for a language
//! model, the error of a regression.

use std::fmt;

use cleave_shared::{
    data::Target,
    model::{LossKind, loss::IGNORED},
    tensor::HostTensor,
};
use serde::{Deserialize, Serialize};

/// What applies to the task; the rest is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Share of samples, or of positions, that were classified right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// e to the mean cross-entropy of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Root of the mean squared error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rmse: Option<f64>,
    /// Share of the labels' variance that is explained, all outputs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
}

impl Score {
    /// One number to compare runs of the same task by: the lower the better.
    pub fn badness(&self) -> f64 {
        let error = self.accuracy.map(|a| 1.0 - a);
        self.rmse.or(self.perplexity).or(error).unwrap_or(f64::INFINITY)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.perplexity.map(|p| format!("perplexity {p:.3}")),
            self.accuracy.map(|a| format!("accuracy {:.2} %", a * 100.0)),
            self.rmse.map(|e| format!("RMSE {e:.5}")),
            self.r2.map(|r| format!("R² {r:.4}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// Adds up batches.
#[derive(Debug, Clone)]
pub struct Tally {
    target: Target,
    kind: LossKind,
    /// Samples, or positions of sequences that count.
    counted: u64,
    loss: f64,
    correct: u64,
    /// Count, sum and sum of squares of each column of FP32 labels.
    columns: Vec<[f64; 3]>,
}

impl Tally {
    pub fn new(target: Target, kind: LossKind) -> Self {
        let columns = match &target {
            Target::Values { names } => vec![[0.0; 3]; names.len()],
            _ => Vec::new(),
        };
        Self { target, kind, counted: 0, loss: 0.0, correct: 0, columns }
    }

    /// Adds a batch of this mean loss.
    pub fn add(&mut self, labels: &HostTensor, loss: f32, correct: u64) -> Result<(), String> {
        let counted = match self.target {
            Target::Values { .. } => {
                let values = labels.to_f32().map_err(|e| e.to_string())?;
                let width = self.columns.len().max(1);
                for (i, value) in values.into_iter().map(f64::from).enumerate() {
                    let [count, sum, squares] = &mut self.columns[i % width];
                    (*count, *sum, *squares) =
                        (*count + 1.0, *sum + value, *squares + value * value);
                }
                labels.shape().first().copied().unwrap_or(0)
            }
            _ => {
                let values = labels.to_i64().map_err(|e| e.to_string())?;
                values.into_iter().filter(|&l| l != IGNORED).count()
            }
        };
        self.counted += counted as u64;
        self.loss += f64::from(loss) * counted as f64;
        self.correct += correct;
        Ok(())
    }

    /// Mean loss; 0 of nothing.
    pub fn loss(&self) -> f64 {
        self.loss / self.counted.max(1) as f64
    }

    pub fn score(&self) -> Score {
        let accuracy = Some(self.correct as f64 / self.counted.max(1) as f64);
        match self.target {
            Target::Classes { .. } => Score { accuracy, ..Score::default() },
            Target::Tokens { .. } => {
                let perplexity = (self.kind == LossKind::CrossEntropy).then(|| self.loss().exp());
                Score { accuracy, perplexity, ..Score::default() }
            }
            // Right is what the teacher says.
            Target::Values { .. } if self.kind == LossKind::Distillation => {
                Score { accuracy, ..Score::default() }
            }
            Target::Values { .. } => {
                let spread: f64 = self.columns.iter().map(|[n, s, q]| q - s * s / n.max(1.0)).sum();
                let squares = self.loss * self.columns.len() as f64;
                let r2 = (spread > 0.0).then(|| 1.0 - squares / spread);
                Score { rmse: Some(self.loss().sqrt()), r2, ..Score::default() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_count_by_what_is_in_them() {
        let mut tally = Tally::new(Target::numbered(3), LossKind::CrossEntropy);
        tally.add(&HostTensor::from_i64(vec![3], &[0, 1, 2]), 1.0, 3).unwrap();
        tally.add(&HostTensor::from_i64(vec![1], &[0]), 5.0, 0).unwrap();
        assert_eq!(tally.loss(), 2.0);
        assert_eq!(tally.score(), Score { accuracy: Some(0.75), ..Score::default() });
    }

    #[test]
    fn ignored_positions_do_not_count() {
        let target = Target::Tokens { length: 2, vocabulary: 9 };
        let mut tally = Tally::new(target, LossKind::CrossEntropy);
        tally.add(&HostTensor::from_i64(vec![2, 2], &[1, IGNORED, 2, 3]), 2.0, 1).unwrap();
        let score = tally.score();
        assert_eq!((score.accuracy, score.perplexity), (Some(1.0 / 3.0), Some(2f64.exp())));
    }

    #[test]
    fn r2_is_the_share_of_the_variance_that_is_explained() {
        // Labels 1, 2, 3, 4 with predictions 1, 2, 3, 5: SSE 1, SST 5.
        let mut tally = Tally::new(Target::Values { names: vec!["y".into()] }, LossKind::Mse);
        tally.add(&HostTensor::from_f32(vec![3, 1], &[1.0, 2.0, 3.0]), 0.0, 0).unwrap();
        tally.add(&HostTensor::from_f32(vec![1, 1], &[4.0]), 1.0, 0).unwrap();
        let score = tally.score();
        assert_eq!(score.rmse, Some(0.5));
        assert!((score.r2.unwrap() - 0.8).abs() < 1e-12, "{score:?}");
        assert_eq!(score.to_string(), "RMSE 0.50000, R² 0.8000");
    }
}
