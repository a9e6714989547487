//! Losses on logits `[batch, classes]` and labels `[batch]`; both are means, as in PyTorch.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};

use super::{Activation, ModelError, Value};
use crate::tensor::HostTensor;

/// Which loss trains the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Mean negative log-likelihood of the softmax.
    CrossEntropy,
    /// Mean squared difference to the one-hot label, over batch and classes.
    Mse,
}

/// Loss of a batch and how many of its samples were classified right.
pub struct LossOutput {
    pub loss: Tensor<1>,
    pub correct: u64,
}

impl LossKind {
    pub fn compute(
        self,
        output: Activation,
        labels: &HostTensor,
        device: &Device,
    ) -> Result<LossOutput, ModelError> {
        let logits = match output.into_single("loss")? {
            Value::R2(t) => t,
            other => {
                let found = other.dims();
                return Err(ModelError::Labels(format!("logits are {found:?}, not rank 2")));
            }
        };
        let labels = checked_labels(labels, logits.dims())?;
        let correct = count_correct(&logits, &labels);
        let [batch, classes] = logits.dims();
        let index: Tensor<2, Int> =
            Tensor::from_data(TensorData::new(labels.clone(), [batch, 1]), device);
        let loss = match self {
            LossKind::CrossEntropy => log_softmax(logits, 1).gather(1, index).mean().neg(),
            LossKind::Mse => {
                let target = TensorData::new(one_hot(&labels, classes), [batch, classes]);
                let difference = logits - Tensor::<2>::from_data(target, device);
                (difference.clone() * difference).mean()
            }
        };
        Ok(LossOutput { loss, correct })
    }
}

fn checked_labels(labels: &HostTensor, logits: [usize; 2]) -> Result<Vec<i64>, ModelError> {
    let [batch, classes] = logits;
    if labels.shape() != [batch] || batch == 0 {
        let found = labels.shape();
        return Err(ModelError::Labels(format!("shape {found:?} for a batch of {batch}")));
    }
    let values = labels.to_i64().map_err(|e| ModelError::Labels(e.to_string()))?;
    match values.iter().find(|&&v| v < 0 || v >= classes as i64) {
        Some(bad) => Err(ModelError::Labels(format!("{bad} is not in 0..{classes}"))),
        None => Ok(values),
    }
}

fn one_hot(labels: &[i64], classes: usize) -> Vec<f32> {
    let mut values = vec![0.0; labels.len() * classes];
    for (row, &label) in labels.iter().enumerate() {
        values[row * classes + label as usize] = 1.0;
    }
    values
}

fn count_correct(logits: &Tensor<2>, labels: &[i64]) -> u64 {
    let data = logits.to_data();
    let values = data.as_slice::<f32>().expect("logits are f32");
    let classes = values.len() / labels.len();
    let rows = values.chunks_exact(classes).zip(labels);
    rows.filter(|(row, label)| argmax(row) as i64 == **label).count() as u64
}

/// Index of the greatest value, the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best
}
