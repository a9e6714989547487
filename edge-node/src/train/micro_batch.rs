//! A step's batch, cut into micro-batches.

use cleave_shared::{
    data::{Batch, Feed},
    model::loss::IGNORED,
    tensor::{DType, HostTensor},
};

/// A part of a step's batch.
pub struct MicroBatch {
    pub batch: Batch,
    pub samples: usize,
    /// Its samples (positions that count) over those of the step: what its mean loss counts in the
    /// step's.
    pub share: f64,
}

/// Cuts the samples at `indices` into `count` parts whose sizes differ by one at most; fewer if there are
/// fewer samples.
pub fn cut(feed: &Feed, indices: &[usize], count: u32) -> Result<Vec<MicroBatch>, String> {
    let parts = (count as usize).clamp(1, indices.len().max(1));
    let bounds = |part: usize| part * indices.len() / parts;
    let batches: Vec<Batch> =
        (0..parts).map(|p| feed.batch(&indices[bounds(p)..bounds(p + 1)])).collect();
    let counts = batches.iter().map(|b| counted(&b.labels)).collect::<Result<Vec<_>, _>>()?;
    let total: usize = counts.iter().sum();
    let share = |n: usize| if parts == 1 { 1.0 } else { n as f64 / total.max(1) as f64 };
    let samples = |part: usize| bounds(part + 1) - bounds(part);
    let cut = batches.into_iter().zip(counts).enumerate();
    let part = |(p, (batch, n))| MicroBatch { batch, samples: samples(p), share: share(n) };
    Ok(cut.map(part).collect())
}

/// Samples or positions that a mean loss is over.
fn counted(labels: &HostTensor) -> Result<usize, String> {
    if labels.dtype() == DType::F32 {
        return Ok(labels.shape().first().copied().unwrap_or(0));
    }
    let values = labels.to_i64().map_err(|e| e.to_string())?;
    Ok(values.into_iter().filter(|&label| label != IGNORED).count())
}

#[cfg(test)]
mod tests {
    use cleave_shared::{
        data::DataSpec,
        model::{LossKind, ModelSpec},
    };

    use super::*;

    #[test]
    fn parts_make_up_the_batch() {
        let model = serde_json::json!({
            "family": "mlp", "input": [1, 8, 8], "hidden": [4], "classes": 10
        });
        let model: ModelSpec = serde_json::from_value(model).unwrap();
        let data = DataSpec::Digits.open().unwrap();
        let feed = Feed::new(&model, LossKind::CrossEntropy, data).unwrap();
        let indices: Vec<usize> = (0..10).collect();
        let whole = feed.batch(&indices);
        for (count, sizes) in [(1, vec![10]), (4, vec![2, 3, 2, 3]), (99, vec![1; 10])] {
            let parts = cut(&feed, &indices, count).unwrap();
            let found: Vec<usize> = parts.iter().map(|p| p.batch.labels.shape()[0]).collect();
            assert_eq!(found, sizes);
            assert!((parts.iter().map(|p| p.share).sum::<f64>() - 1.0).abs() < 1e-12);
            let labels = parts.iter().flat_map(|p| p.batch.labels.to_i64().unwrap());
            assert_eq!(labels.collect::<Vec<_>>(), whole.labels.to_i64().unwrap());
            let inputs = parts.iter().flat_map(|p| p.batch.inputs[0].1.to_f32().unwrap());
            assert_eq!(inputs.collect::<Vec<_>>(), whole.inputs[0].1.to_f32().unwrap());
        }
    }

    #[test]
    fn only_positions_that_count_have_a_share() {
        let labels = HostTensor::from_i64(vec![1, 3], &[4, IGNORED, 2]);
        assert_eq!(counted(&labels), Ok(2));
        assert_eq!(counted(&HostTensor::from_f32(vec![5, 1], &[0.0; 5])), Ok(5));
    }
}
