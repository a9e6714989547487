//! Which edge holds which samples, for studies in which one data set stands for many edges' own.
//!
//! A function of labels, number of edges and seed: every process of a group finds the same parts
//! without a word.

use rand_distr::{Distribution, Exp1, Gamma};
use serde::{Deserialize, Serialize};

use super::{
    DataError, Dataset, Target,
    shuffle::{shuffle, stream},
};
use crate::tensor::HostTensor;

/// Draws of all classes' shares before giving up.
const DRAWS: u64 = 10_000;

/// How labels are spread over edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionKind {
    /// Every edge has a random part of the same size.
    #[default]
    Iid,
    /// Each class is dealt out by shares drawn from a symmetric Dirichlet distribution.
    Dirichlet,
}

/// How a training part is dealt out among edges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Partition {
    pub kind: PartitionKind,
    /// Concentration of the Dirichlet distribution: near 0 an edge has few classes, large is IID.
    pub alpha: f64,
    /// Samples that every edge gets at least.
    pub least: usize,
}

impl Partition {
    /// The samples of each edge; together they are `indices`, each once. Refuses what cannot be: fewer
    /// samples than edges need, Dirichlet shares of labels that are no classes.
    pub fn deal(
        &self,
        dataset: &dyn Dataset,
        indices: &[usize],
        edges: usize,
        seed: u64,
    ) -> Result<Vec<Vec<usize>>, DataError> {
        let least = self.least.max(1);
        if indices.len() < edges.saturating_mul(least) {
            let samples = indices.len();
            return Err(DataError::Partition(format!(
                "{samples} samples are too few for {edges} edges with {least} each; set fewer edges \
                 or a smaller least_samples"
            )));
        }
        match self.kind {
            PartitionKind::Iid => Ok(even(indices, edges, seed)),
            PartitionKind::Dirichlet => {
                let classes = by_class(dataset, indices)?;
                self.skewed(&classes, indices.len(), edges, seed)
            }
        }
    }

    /// Shares are drawn again, all of them, until no edge has too few samples.
    fn skewed(
        &self,
        classes: &[Vec<usize>],
        samples: usize,
        edges: usize,
        seed: u64,
    ) -> Result<Vec<Vec<usize>>, DataError> {
        let (alpha, least) = (self.alpha, self.least.max(1));
        let gamma = Gamma::new(alpha + 1.0, 1.0);
        let gamma = gamma.map_err(|e| DataError::Partition(format!("alpha = {alpha}: {e}")))?;
        for draw in 0..DRAWS {
            let parts = self.draw(&gamma, classes, samples, edges, seed, draw);
            if parts.iter().all(|part| part.len() >= least) {
                return Ok(parts);
            }
        }
        Err(DataError::Partition(format!(
            "in {DRAWS} draws with alpha = {alpha} some of {edges} edges always had fewer than {least} \
             of {samples} samples; set fewer edges, a larger alpha or a smaller least_samples"
        )))
    }

    fn draw(
        &self,
        gamma: &Gamma<f64>,
        classes: &[Vec<usize>],
        samples: usize,
        edges: usize,
        seed: u64,
        draw: u64,
    ) -> Vec<Vec<usize>> {
        let mut rng = stream(b"cleave:shares:v1", seed, draw);
        let mut parts = vec![Vec::new(); edges];
        for (class, members) in classes.iter().enumerate() {
            // In logarithms: with a small alpha every variate itself may underflow to 0.
            let mut logs: Vec<f64> = (0..edges)
                .map(|_| {
                    let exponential: f64 = Exp1.sample(&mut rng);
                    gamma.sample(&mut rng).ln() - exponential / self.alpha
                })
                .collect();
            // An edge that has its even share already gets no more, as in NIID-Bench.
            for (log, part) in logs.iter_mut().zip(&parts) {
                if part.len() * edges >= samples {
                    *log = f64::NEG_INFINITY;
                }
            }
            let mut members = members.clone();
            shuffle(&mut members, b"cleave:class:v1\0", seed, class as u64);
            let ends = ends(&logs, members.len());
            let mut start = 0;
            for (part, end) in parts.iter_mut().zip(ends) {
                part.extend_from_slice(&members[start..end]);
                start = end;
            }
        }
        parts
    }
}

/// Where each edge's samples of a class end, by shares given as logarithms up to a constant.
fn ends(logs: &[f64], members: usize) -> Vec<usize> {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let shares: Vec<f64> = match most.is_finite() {
        true => logs.iter().map(|log| (log - most).exp()).collect(),
        // Every edge has its even share, which rounding can leave samples over from.
        false => vec![1.0; logs.len()],
    };
    let total: f64 = shares.iter().sum();
    let mut sum = 0.0;
    let mut ends: Vec<usize> = shares
        .iter()
        .map(|share| {
            sum += share / total;
            ((sum * members as f64) as usize).min(members)
        })
        .collect();
    if let Some(last) = ends.last_mut() {
        *last = members;
    }
    ends
}

/// Parts whose sizes differ by one at most.
fn even(indices: &[usize], edges: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order = indices.to_vec();
    shuffle(&mut order, b"cleave:edges:v1\0", seed, 0);
    let start = |edge: usize| edge * order.len() / edges;
    (0..edges).map(|edge| order[start(edge)..start(edge + 1)].to_vec()).collect()
}

/// The samples of each class, in the order of `indices`.
fn by_class(dataset: &dyn Dataset, indices: &[usize]) -> Result<Vec<Vec<usize>>, DataError> {
    let Target::Classes { names } = dataset.target() else {
        let name = dataset.name();
        let text = format!("partition = \"dirichlet\" needs classes, {name} has none; set \"iid\"");
        return Err(DataError::Partition(text));
    };
    let mut bytes = Vec::new();
    indices.iter().for_each(|&index| dataset.write_label(index, &mut bytes));
    let (dtype, _) = dataset.target().label();
    let labels = HostTensor::new(dtype, vec![indices.len()], bytes.into())
        .and_then(|labels| labels.to_i64())
        .map_err(|e| DataError::Partition(e.to_string()))?;
    let mut classes = vec![Vec::new(); names.len()];
    for (&index, label) in indices.iter().zip(labels) {
        let class = usize::try_from(label).ok().and_then(|label| classes.get_mut(label));
        let unknown = || DataError::Partition(format!("sample {index} has the class {label}"));
        class.ok_or_else(unknown)?.push(index);
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::data::{Column, DataSpec, Part, Split, Table, table::integer_bytes};

    fn labelled(labels: &[i64], classes: usize) -> Arc<dyn Dataset> {
        Arc::new(Table {
            name: "table".into(),
            samples: labels.len(),
            inputs: vec![Column::floats("x", &[1], &vec![0.0; labels.len()])],
            target: Target::numbered(classes),
            labels: integer_bytes(labels),
        })
    }

    fn dirichlet(alpha: f64, least: usize) -> Partition {
        Partition { kind: PartitionKind::Dirichlet, alpha, least }
    }

    fn counts(dataset: &dyn Dataset, part: &[usize]) -> Vec<usize> {
        by_class(dataset, part).unwrap().iter().map(Vec::len).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_sample_is_lost_or_doubled(
            labels in prop::collection::vec(0i64..5, 40..300), edges in 1usize..8,
            alpha in 0.05f64..20.0, iid: bool, seed: u64,
        ) {
            let dataset = labelled(&labels, 5);
            let indices: Vec<usize> = (0..labels.len()).rev().step_by(2).collect();
            let kind = if iid { PartitionKind::Iid } else { PartitionKind::Dirichlet };
            let partition = Partition { kind, alpha, least: 1 };
            let Ok(parts) = partition.deal(dataset.as_ref(), &indices, edges, seed) else {
                // Draws may run out for a few edges that share few samples.
                prop_assert!(!iid && alpha < 1.0);
                return Ok(());
            };
            prop_assert_eq!(parts.len(), edges);
            prop_assert!(parts.iter().all(|part| !part.is_empty()));
            prop_assert_eq!(&parts, &partition.deal(dataset.as_ref(), &indices, edges, seed).unwrap());
            let mut all = parts.concat();
            all.sort_unstable();
            let mut expected = indices;
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }

    /// Mean over edges of the largest class's share of an edge's samples.
    fn skew(alpha: f64) -> f64 {
        let labels: Vec<i64> = (0..5000).map(|i| i % 10).collect();
        let dataset = labelled(&labels, 10);
        let indices: Vec<usize> = (0..labels.len()).collect();
        let (mut sum, mut parts_seen) = (0.0, 0.0);
        for seed in 0..20 {
            let parts = dirichlet(alpha, 1).deal(dataset.as_ref(), &indices, 10, seed).unwrap();
            for part in parts {
                let counts = counts(dataset.as_ref(), &part);
                sum += *counts.iter().max().unwrap() as f64 / part.len() as f64;
                parts_seen += 1.0;
            }
        }
        sum / parts_seen
    }

    #[test]
    fn a_small_alpha_skews_and_a_large_one_does_not() {
        let skews = [0.05, 0.5, 5.0, 1000.0].map(skew);
        assert!(skews.is_sorted_by(|a, b| a > b), "{skews:?}");
        // Nearly one class each; and nearly the tenth that ten equal classes are.
        assert!(skews[0] > 0.7 && skews[3] < 0.12, "{skews:?}");
    }

    #[test]
    fn shares_have_the_moments_of_the_distribution() {
        // Of the first class no edge is full yet, so its shares are Dirichlet's own: mean 1/n,
        // variance (n - 1) / (n² (n alpha + 1)).
        let (edges, alpha, members) = (4, 0.5, 100_000);
        let gamma = Gamma::new(alpha + 1.0, 1.0).unwrap();
        let classes = [(0..members).collect::<Vec<_>>()];
        let partition = dirichlet(alpha, 1);
        let shares: Vec<f64> = (0..4000)
            .map(|draw| {
                let parts = partition.draw(&gamma, &classes, usize::MAX / 8, edges, 3, draw);
                parts[1].len() as f64 / members as f64
            })
            .collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        let squares = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>();
        let (variance, expected) = (squares / shares.len() as f64, 3.0 / (16.0 * 3.0));
        assert!((mean - 0.25).abs() < 0.015, "{mean}");
        assert!((variance / expected - 1.0).abs() < 0.06, "{variance} {expected}");
    }

    #[test]
    fn everybody_gets_the_least() {
        let dataset = DataSpec::Digits.open().unwrap();
        let split = Split::new(dataset.len(), 7);
        for edges in [16, 64] {
            let least = if edges == 16 { 10 } else { 2 };
            let train = split.indices(Part::Train);
            let parts = dirichlet(0.5, least).deal(dataset.as_ref(), train, edges, 7).unwrap();
            assert!(parts.iter().all(|part| part.len() >= least));
        }
    }

    #[test]
    fn the_parts_never_change() {
        let labels: Vec<i64> = (0..60).map(|i| i % 3).collect();
        let indices: Vec<usize> = (0..60).collect();
        let dataset = labelled(&labels, 3);
        let parts = dirichlet(0.5, 2).deal(dataset.as_ref(), &indices, 3, 42).unwrap();
        let sizes: Vec<_> = parts.iter().map(|part| counts(dataset.as_ref(), part)).collect();
        assert_eq!(sizes, [vec![17, 2, 2], vec![2, 8, 4], vec![1, 10, 14]]);
    }

    #[test]
    fn what_cannot_be_dealt_is_refused() {
        let dataset = labelled(&[0, 0, 1, 1], 2);
        let refused = |partition: Partition, edges| {
            partition.deal(dataset.as_ref(), &[0, 1, 2, 3], edges, 1).unwrap_err().to_string()
        };
        let text = refused(dirichlet(0.5, 2), 3);
        assert!(text.contains("4 samples are too few for 3 edges with 2 each"), "{text}");
        let (one, indices) = (labelled(&[0; 8], 1), [0, 1, 2, 3, 4, 5, 6, 7]);
        let error = dirichlet(1e-3, 2).deal(one.as_ref(), &indices, 4, 1).unwrap_err();
        assert!(error.to_string().contains("set fewer edges, a larger alpha"), "{error}");
        let line = DataSpec::SyntheticLine { samples: 50, noise: 0.0, seed: 1 }.open().unwrap();
        let indices: Vec<usize> = (0..50).collect();
        let error = dirichlet(0.5, 1).deal(line.as_ref(), &indices, 2, 1).unwrap_err();
        assert!(error.to_string().contains("needs classes"), "{error}");
    }
}
