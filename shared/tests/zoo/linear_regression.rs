//! Linear regression against PyTorch, and against least squares in closed form.

use cleave_shared::{
    model::{LinearRegressionSpec, LossKind, ModelSpec, OptimizerSpec, SeededWeights, Segment},
    tensor::HostTensor,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::{
    reference::{Reference, assert_close, at},
    splits::{SplitTraining, infer},
};

fn sgd(learning_rate: f64) -> OptimizerSpec {
    OptimizerSpec::Sgd { learning_rate, momentum: 0.0, weight_decay: 0.0 }
}

#[test]
fn it_trains_as_pytorch_does() {
    for outputs in [1, 2] {
        let spec = ModelSpec::LinearRegression(LinearRegressionSpec {
            features: 3,
            outputs,
            mean: vec![5.0, 50.0, 0.5],
            std: vec![1.0, 10.0, 0.1],
        });
        let steps = 25;
        let case = json!({
            "model": spec, "loss": LossKind::Mse, "optimizer": sgd(0.05), "batch": 16,
            "steps": steps, "length": 1,
        });
        let reference = Reference::make("rnn_reference.py", &case);
        let file = reference.weights();
        let flops: u64 = spec.stages().iter().map(|s| s.flops).sum();
        assert_eq!(reference.facts["flops"], flops);
        let input = |step| vec![("x".into(), at(reference.tensor("input"), step))];
        for split in 0..=2 {
            let output = infer(&spec, &file, split, &input(0)).remove(0).1;
            assert_close("outputs", &output, reference.tensor("output"), 1e-4);
            let mut training = SplitTraining::new(&spec, &file, split, LossKind::Mse, sgd(0.05));
            let step = |i| training.step(&input(i), &at(reference.tensor("label"), i));
            let losses: Vec<f32> = (0..steps).map(step).collect();
            assert!(losses[steps - 1] < 0.2 * losses[0], "it learns: {losses:?}");
            let losses = HostTensor::from_f32(vec![steps], &losses);
            let worst = assert_close("losses", &losses, reference.tensor("losses"), 1e-3);
            for (name, tensor) in training.weights() {
                let expected = reference.tensor(&format!("final/{name}"));
                assert_close(&name, &tensor, expected, 1e-3);
            }
            println!("{outputs} outputs, split at {split}: losses {worst:.1e}");
        }
    }
}

/// Points near a plane: rows of features, and what is measured there.
struct Samples {
    x: Vec<Vec<f64>>,
    y: Vec<f64>,
}

impl Samples {
    /// Feature `i` is uniform in `ranges[i]`; `y = weight · x + bias`, and noise in ±0.1.
    fn new(ranges: &[[f64; 2]], weight: &[f64], bias: f64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut row = |_| ranges.iter().map(|r| rng.random_range(r[0]..r[1])).collect();
        let x: Vec<Vec<f64>> = (0..200).map(&mut row).collect();
        let exact = |row: &Vec<f64>| row.iter().zip(weight).map(|(x, w)| x * w).sum::<f64>() + bias;
        let y = x.iter().map(|row| exact(row) + rng.random_range(-0.1..0.1)).collect();
        Self { x, y }
    }

    fn spec(&self) -> LinearRegressionSpec {
        let count = self.x.len() as f64;
        let features = self.x[0].len();
        let mean = |i: usize| self.x.iter().map(|row| row[i]).sum::<f64>() / count;
        let square = |i: usize| self.x.iter().map(|row| (row[i] - mean(i)).powi(2)).sum::<f64>();
        let std = |i: usize| (square(i) / count).sqrt();
        LinearRegressionSpec {
            features,
            outputs: 1,
            mean: (0..features).map(|i| mean(i) as f32).collect(),
            std: (0..features).map(|i| std(i) as f32).collect(),
        }
    }

    /// Weights, then bias, that minimise the squares: the normal equations `AᵀA w = Aᵀy`, where a row
    /// of `A` is a row of features and a 1, by Gauss and Jordan's elimination.
    fn least_squares(&self) -> Vec<f64> {
        let rows: Vec<Vec<f64>> = self.x.iter().map(|r| [&r[..], &[1.0]].concat()).collect();
        let n = rows[0].len();
        let product = |i: usize, j: usize| rows.iter().map(|r| r[i] * r[j]).sum::<f64>();
        let right = |i: usize| rows.iter().zip(&self.y).map(|(r, y)| r[i] * y).sum::<f64>();
        let equation = |i: usize| (0..n).map(|j| product(i, j)).chain([right(i)]).collect();
        let mut m: Vec<Vec<f64>> = (0..n).map(equation).collect();
        for i in 0..n {
            let largest = (i..n).max_by(|&a, &b| m[a][i].abs().total_cmp(&m[b][i].abs())).unwrap();
            m.swap(i, largest);
            let pivot: Vec<f64> = m[i].iter().map(|v| v / m[i][i]).collect();
            for row in &mut m {
                let factor = row[i];
                row.iter_mut().zip(&pivot).for_each(|(v, p)| *v -= factor * p);
            }
            m[i] = pivot;
        }
        m.iter().map(|row| row[n]).collect()
    }
}

/// Weights, then bias, in the units of the features, found by gradient descent in two halves.
fn fitted(samples: &Samples, split: usize) -> Vec<f64> {
    let sizes = samples.spec();
    let spec = ModelSpec::LinearRegression(sizes.clone());
    let (mut source, count) = (SeededWeights(2), spec.stage_count());
    let mut head = Segment::build(&spec, 0..split, &mut source, true).unwrap();
    let mut tail = Segment::build(&spec, split..count, &mut source, true).unwrap();
    let flat: Vec<f32> = samples.x.iter().flatten().map(|&v| v as f32).collect();
    let input = vec![("x".into(), HostTensor::from_f32(vec![200, sizes.features], &flat))];
    let labels: Vec<f32> = samples.y.iter().map(|&v| v as f32).collect();
    let labels = HostTensor::from_f32(vec![200, 1], &labels);
    let wanted = head.has_parameters();
    assert_eq!(wanted, split == 2, "scaling has nothing to learn");
    for _ in 0..200 {
        let (cut, pass) = head.head_forward(&input).unwrap();
        let done = tail.tail_step(&cut, &labels, LossKind::Mse, &sgd(0.1), wanted).unwrap();
        if wanted {
            head.head_backward(pass, &done.gradient, &sgd(0.1)).unwrap();
        }
    }
    let weights = head.weights().into_iter().chain(tail.weights());
    let values: Vec<Vec<f32>> = weights.map(|(_, t)| t.to_f32().unwrap()).collect();
    let [weight, bias] = &values[..] else { panic!("a weight and a bias") };
    let each = weight.iter().zip(&sizes.std).map(|(w, s)| f64::from(w / s));
    let mut found: Vec<f64> = each.collect();
    let shift: f64 = found.iter().zip(&sizes.mean).map(|(w, m)| w * f64::from(*m)).sum();
    found.push(f64::from(bias[0]) - shift);
    found
}

#[test]
fn gradient_descent_in_two_halves_finds_least_squares() {
    let line = Samples::new(&[[-1.0, 4.0]], &[3.0], 0.7);
    let plane = Samples::new(&[[-1.0, 4.0], [200.0, 900.0], [0.0, 0.02]], &[3.0, -0.01, 40.0], 2.0);
    for samples in [line, plane] {
        let expected = samples.least_squares();
        for split in 0..=2 {
            let found = fitted(&samples, split);
            for (found, expected) in found.iter().zip(&expected) {
                let off = (found - expected).abs() / expected.abs();
                assert!(off < 1e-3, "split at {split}: {found} instead of {expected}");
            }
            println!("split at {split}: {found:?}, least squares {expected:?}");
        }
    }
}
