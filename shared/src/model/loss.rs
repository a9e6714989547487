//! Losses on the model's output; all are means, as in PyTorch.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};

use super::{Activation, ModelError, Value};
use crate::tensor::{DType, HostTensor};

/// Label of a position that does not count, as in PyTorch and Hugging Face.
pub const IGNORED: i64 = -100;

/// Which loss trains the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Mean negative log-likelihood of the softmax over logits `[batch, classes]` with labels
    /// `[batch]`, or `[batch, sequence, classes]` with labels `[batch, sequence]`; [`IGNORED`] labels
    /// do not count.
    CrossEntropy,
    /// Mean squared difference to FP32 labels of the output's shape, or to the one-hot vector of
    /// INT64 labels.
    Mse,
    /// How far the softmax is from a teacher's, whose logits are the labels: FP32 `[batch, classes]`; see
    /// [`distillation`].
    Distillation,
}

/// Loss of a batch and how many of its samples (positions of a sequence) were classified right, or as the
/// teacher does; 0 where labels are not classes.
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
        let output = output.into_single("loss")?;
        if self == LossKind::Distillation {
            return taught(output, labels, device);
        }
        if labels.dtype() == DType::F32 {
            return self.regression(output, labels, device);
        }
        let (logits, rows) = match output {
            Value::R2(t) => {
                let rows = vec![t.dims()[0]];
                (t, rows)
            }
            Value::R3(t) => {
                let [batch, sequence, classes] = t.dims();
                (t.reshape([batch * sequence, classes]), vec![batch, sequence])
            }
            other => {
                let found = other.dims();
                return Err(ModelError::Labels(format!("logits are {found:?}, not rank 2 or 3")));
            }
        };
        let labels = checked_labels(labels, &rows, logits.dims()[1])?;
        let correct = count_correct(&logits, &labels);
        let loss = match self {
            LossKind::CrossEntropy => cross_entropy(logits, &labels, device)?,
            LossKind::Mse | LossKind::Distillation => {
                let [rows, classes] = logits.dims();
                let target = TensorData::new(one_hot(&labels, classes), [rows, classes]);
                mean_square(logits - Tensor::<2>::from_data(target, device))
            }
        };
        Ok(LossOutput { loss, correct })
    }

    fn regression(
        self,
        output: Value,
        labels: &HostTensor,
        device: &Device,
    ) -> Result<LossOutput, ModelError> {
        if self != LossKind::Mse {
            return Err(ModelError::Labels("FP32 labels need the loss mse".into()));
        }
        if labels.shape() != output.dims() {
            let (found, expected) = (labels.shape(), output.dims());
            return Err(ModelError::Labels(format!("shape {found:?} for outputs {expected:?}")));
        }
        let loss = match (output, Value::from_host(labels, device)?) {
            (Value::R2(a), Value::R2(b)) => mean_square(a - b),
            (Value::R3(a), Value::R3(b)) => mean_square(a - b),
            _ => return Err(ModelError::Labels("FP32 labels must have rank 2 or 3".into())),
        };
        Ok(LossOutput { loss, correct: 0 })
    }
}

/// What a teacher's softmax is taken at: 4 is in the middle of what Hinton et al. found good for ten classes.
const TEMPERATURE: f64 = 4.0;

fn taught(output: Value, teacher: &HostTensor, device: &Device) -> Result<LossOutput, ModelError> {
    let dims = output.dims();
    let (Value::R2(logits), true) = (output, teacher.shape() == dims) else {
        let found = teacher.shape();
        let text = format!("a teacher's logits of shape {found:?} for outputs {dims:?}");
        return Err(ModelError::Labels(text));
    };
    let values = teacher.to_f32().map_err(|e| ModelError::Labels(e.to_string()))?;
    let classes = dims[1].max(1);
    let says: Vec<i64> = values.chunks_exact(classes).map(|row| argmax(row) as i64).collect();
    if says.is_empty() {
        return Err(ModelError::Labels("no samples".into()));
    }
    let correct = count_correct(&logits, &says);
    let teacher = Tensor::from_data(TensorData::new(values, [says.len(), classes]), device);
    Ok(LossOutput { loss: distillation(logits, teacher, TEMPERATURE), correct })
}

fn mean_square<const D: usize>(difference: Tensor<D>) -> Tensor<1> {
    (difference.clone() * difference).mean()
}

/// Distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531): how far the softmax of `logits` is from
/// the teacher's, both at this temperature. T² · KL(teacher ‖ student), the mean over rows; T² keeps the
/// gradients' size whatever the temperature is.
pub fn distillation(logits: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let [rows, _] = logits.dims();
    let taught = log_softmax(teacher.detach() / temperature, 1);
    let learned = log_softmax(logits / temperature, 1);
    let divergence = taught.clone().exp() * (taught - learned);
    divergence.sum() * (temperature * temperature / rows as f64)
}

/// The loss [`LossKind::CrossEntropy`] for labels in range.
pub fn cross_entropy(
    logits: Tensor<2>,
    labels: &[i64],
    device: &Device,
) -> Result<Tensor<1>, ModelError> {
    let counted = labels.iter().filter(|&&l| l != IGNORED).count();
    if counted == 0 {
        return Err(ModelError::Labels("every label is to be ignored".into()));
    }
    let rows = labels.len();
    let index: Vec<i64> = labels.iter().map(|&l| l.max(0)).collect();
    let index: Tensor<2, Int> = Tensor::from_data(TensorData::new(index, [rows, 1]), device);
    let picked = log_softmax(logits, 1).gather(1, index);
    if counted == rows {
        return Ok(picked.mean().neg());
    }
    let weight: Vec<f32> = labels.iter().map(|&l| f32::from(l != IGNORED)).collect();
    let weight = Tensor::<2>::from_data(TensorData::new(weight, [rows, 1]), device);
    Ok((picked * weight).sum().neg().div_scalar(counted as f32))
}

fn checked_labels(
    labels: &HostTensor,
    rows: &[usize],
    classes: usize,
) -> Result<Vec<i64>, ModelError> {
    if labels.shape() != rows || rows.contains(&0) {
        let found = labels.shape();
        return Err(ModelError::Labels(format!("shape {found:?} for a batch of {rows:?}")));
    }
    let values = labels.to_i64().map_err(|e| ModelError::Labels(e.to_string()))?;
    match values.iter().find(|&&v| v != IGNORED && (v < 0 || v >= classes as i64)) {
        Some(bad) => Err(ModelError::Labels(format!("{bad} is not in 0..{classes}"))),
        None => Ok(values),
    }
}

fn one_hot(labels: &[i64], classes: usize) -> Vec<f32> {
    let mut values = vec![0.0; labels.len() * classes];
    for (row, &label) in labels.iter().enumerate().filter(|(_, l)| **l != IGNORED) {
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
