//! The smallest regression: points near the line `y = 3x`, drawn from a seed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Column, Table, Target};

const SLOPE: f32 = 3.0;

/// `samples` points with `x` uniform in -1 to 1, and `y = 3x` plus normal noise of standard deviation
/// `noise`.
pub fn synthetic_line(samples: usize, noise: f32, seed: u64) -> Table {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut x = Vec::with_capacity(samples);
    let mut y = Vec::with_capacity(samples);
    for _ in 0..samples {
        let at = rng.random_range(-1.0f32..1.0);
        x.push(at);
        y.push(SLOPE * at + noise * normal(&mut rng));
    }
    let labels: Vec<u8> = y.iter().flat_map(|v| v.to_le_bytes()).collect();
    Table {
        name: "synthetic-line".into(),
        samples,
        inputs: vec![Column::floats("x", &[1], &x)],
        target: Target::Values { names: vec!["y".into()] },
        labels: labels.into(),
    }
}

/// Box and Muller's transform.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.random_range(0.0f32..1.0)).ln()).sqrt();
    radius * rng.random_range(0.0..std::f32::consts::TAU).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::gather;

    #[test]
    fn least_squares_finds_the_line() {
        let set = synthetic_line(2000, 0.1, 5);
        let batch = gather(&set, &(0..2000).collect::<Vec<_>>());
        let (x, y) = (batch.inputs[0].1.to_f32().unwrap(), batch.labels.to_f32().unwrap());
        assert_eq!(batch.labels.shape(), [2000, 1]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let slope = dot(&x, &y) / dot(&x, &x);
        assert!((slope - 3.0).abs() < 0.02, "{slope}");
        let rest: Vec<f32> = x.iter().zip(&y).map(|(x, y)| y - slope * x).collect();
        let deviation = (dot(&rest, &rest) / 2000.0).sqrt();
        assert!((deviation - 0.1).abs() < 0.01, "{deviation}");
    }
}
