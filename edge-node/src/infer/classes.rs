//! The likeliest classes of each sample, where an answer is logits.

use std::path::Path;

use cleave_shared::tensor::DType;
use serde::Serialize;

use super::file;
use crate::client::Answer;

/// How Cleave's models call the output whose softmax are probabilities.
const LOGITS: &str = "logits";

/// How classes are shown.
#[derive(Debug, Clone, Default)]
pub struct Show {
    /// How many of a sample.
    pub top: usize,
    /// Names of all classes. With them an output of any name is taken for logits.
    pub labels: Option<Vec<String>>,
    /// Values as they are, no classes.
    pub raw: bool,
}

/// A class, and how sure the model is of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    pub class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Of the softmax, 0 to 1.
    pub probability: f64,
}

/// One name a line.
pub fn read_labels(path: &Path) -> Result<Vec<String>, String> {
    Ok(file::text(path)?.lines().map(|line| line.trim().to_string()).collect())
}

/// For each sample its likeliest classes, the likeliest first; nothing if no output is FP32
/// `[batch, classes]`.
pub fn classes(answer: &Answer, show: &Show) -> Result<Option<Vec<Vec<Class>>>, String> {
    if show.raw {
        return Ok(None);
    }
    let labels = show.labels.as_deref();
    let found = answer.outputs.iter().find(|(name, tensor)| {
        let rows = matches!(tensor.shape(), [_, classes] if *classes > 1);
        rows && tensor.dtype() == DType::F32 && (name == LOGITS || labels.is_some())
    });
    let Some((name, tensor)) = found else {
        return match labels {
            Some(_) => Err("--labels: the model's answer has no classes; drop it".into()),
            None => Ok(None),
        };
    };
    let width = tensor.shape()[1];
    if let Some(labels) = labels
        && labels.len() != width
    {
        let found = labels.len();
        return Err(format!("--labels: {found} lines, but output {name:?} has {width} classes"));
    }
    let values = tensor.to_f32().map_err(|e| e.to_string())?;
    Ok(Some(values.chunks_exact(width).map(|row| top(row, show.top, labels)).collect()))
}

fn top(logits: &[f32], count: usize, labels: Option<&[String]>) -> Vec<Class> {
    let shares = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let class = |class: usize| {
        let label = labels.map(|labels| labels[class].clone());
        Class { class, label, probability: shares[class] }
    };
    order.into_iter().take(count).map(class).collect()
}

/// Probabilities that add up to 1. The highest logit is taken off first, so that none overflows.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits.iter().map(|&v| (f64::from(v) - f64::from(highest)).exp());
    let powers: Vec<f64> = powers.collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use cleave_shared::tensor::HostTensor;

    use super::*;
    use crate::serve::Timing;

    fn answer(name: &str, shape: &[usize], values: &[f32]) -> Answer {
        Answer {
            outputs: vec![(name.into(), HostTensor::from_f32(shape.to_vec(), values))],
            timing: Timing::default(),
            split_point: 4,
            version: "seed-7".into(),
            exit: None,
            offline: false,
        }
    }

    fn show(labels: &[&str]) -> Show {
        let labels = labels.iter().map(|label| label.to_string()).collect::<Vec<_>>();
        Show { top: 2, labels: Some(labels).filter(|l| !l.is_empty()), raw: false }
    }

    fn named(row: &[Class]) -> Vec<(usize, Option<&str>)> {
        row.iter().map(|c| (c.class, c.label.as_deref())).collect()
    }

    #[test]
    fn softmax_is_right_and_does_not_overflow() {
        // Of scipy.special.softmax([1, 2, 3]).
        let expected = [0.09003057317038046, 0.24472847105479764, 0.6652409557748218];
        for shift in [0.0, 1000.0, -1000.0] {
            let shares = softmax(&[1.0 + shift, 2.0 + shift, 3.0 + shift]);
            assert!(shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{shares:?}");
        }
    }

    #[test]
    fn each_sample_has_its_likeliest_classes() {
        let answer = answer(LOGITS, &[2, 3], &[0.0, 2.0, 1.0, 5.0, 5.0, 0.0]);
        let top = classes(&answer, &show(&["a", "b", "c"])).unwrap().expect("logits");
        assert_eq!(named(&top[0]), [(1, Some("b")), (2, Some("c"))]);
        // Of equal ones the first comes first.
        assert_eq!(named(&top[1]), [(0, Some("a")), (1, Some("b"))]);
        let error = classes(&answer, &show(&["a"])).unwrap_err();
        assert_eq!(error, "--labels: 1 lines, but output \"logits\" has 3 classes");
        let raw = Show { raw: true, ..show(&[]) };
        assert_eq!(classes(&answer, &raw), Ok(None));
    }

    #[test]
    fn what_is_no_class_is_left_alone() {
        let prediction = answer("prediction", &[1, 2], &[0.5, 7.0]);
        assert_eq!(classes(&prediction, &show(&[])), Ok(None));
        // Whoever names its classes says that it has some.
        assert!(classes(&prediction, &show(&["low", "high"])).unwrap().is_some());
        let single = answer(LOGITS, &[2, 1], &[0.5, 7.0]);
        assert_eq!(classes(&single, &show(&[])), Ok(None));
        assert!(classes(&single, &show(&["a"])).unwrap_err().contains("no classes"));
        let sequence = answer(LOGITS, &[1, 2, 2], &[0.0; 4]);
        assert_eq!(classes(&sequence, &show(&[])), Ok(None));
    }
}
