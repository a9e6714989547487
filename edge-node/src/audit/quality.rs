//! How close a rebuilt input is to the original: MSE, PSNR, SSIM.

use serde::Serialize;

use super::subject::Samples;

/// Means over held-out samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quality {
    /// Mean squared error, in the data's own unit.
    pub mse: f64,
    /// Peak signal-to-noise ratio of that error, dB.
    pub psnr: f64,
    /// Structural similarity, 1 for equal images; none where inputs are no images, or too small.
    pub ssim: Option<f64>,
}

impl Quality {
    /// `range` is the greatest value less the least.
    pub(super) fn of(originals: &Samples, rebuilt: &Samples, range: f64) -> Self {
        let pairs = originals.values.iter().zip(&rebuilt.values);
        let squares: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let mse = squares / originals.values.len() as f64;
        let similar =
            |i: usize| ssim(originals.sample(i), rebuilt.sample(i), originals.image()?, range);
        let all: Option<Vec<f64>> = (0..originals.count()).map(similar).collect();
        let ssim = all.map(|all| all.iter().sum::<f64>() / all.len() as f64);
        Self { mse, psnr: 10.0 * (range * range / mse).log10(), ssim }
    }
}

/// Structural similarity of two images `[channels, height, width]`, the mean over channels and windows
/// (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
/// similarity", IEEE TIP 2004). `range` is that of the data. None for images smaller than 3×3.
pub fn ssim(
    a: &[f32],
    b: &[f32],
    [channels, height, width]: [usize; 3],
    range: f64,
) -> Option<f64> {
    let window = window(height.min(width))?;
    let constants = [0.01, 0.03].map(|k: f64| (k * range).powi(2));
    let plane = height * width;
    let of_channel = |c: usize| {
        let part = |all: &[f32]| -> Vec<f64> {
            all[c * plane..(c + 1) * plane].iter().map(|v| f64::from(*v)).collect()
        };
        plane_ssim(&part(a), &part(b), [height, width], &window, constants)
    };
    Some((0..channels).map(of_channel).sum::<f64>() / channels as f64)
}

fn plane_ssim(a: &[f64], b: &[f64], size: [usize; 2], window: &[f64], [c1, c2]: [f64; 2]) -> f64 {
    let product =
        |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x * y).collect() };
    let mean = |values: &[f64]| filtered(values, size, window);
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (aa, bb, ab) = (mean(&product(a, a)), mean(&product(b, b)), mean(&product(a, b)));
    let at = |i: usize| {
        let (ma, mb) = (mean_a[i], mean_b[i]);
        let (va, vb, covariance) = (aa[i] - ma * ma, bb[i] - mb * mb, ab[i] - ma * mb);
        (2.0 * ma * mb + c1) * (2.0 * covariance + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    };
    (0..mean_a.len()).map(at).sum::<f64>() / mean_a.len() as f64
}

/// The paper's Gaussian window of 11 with deviation 1.5; in smaller images a uniform one, of 7 or
/// what fits, as scikit-image does by default. It is the same along both axes.
fn window(extent: usize) -> Option<Vec<f64>> {
    let weights: Vec<f64> = match extent {
        0..=2 => return None,
        3..=10 => {
            let size = extent.min(7);
            vec![1.0; if size.is_multiple_of(2) { size - 1 } else { size }]
        }
        _ => (-5..=5).map(|d: i32| (-f64::from(d * d) / (2.0 * 1.5 * 1.5)).exp()).collect(),
    };
    let sum: f64 = weights.iter().sum();
    Some(weights.iter().map(|w| w / sum).collect())
}

/// The weighted mean of each window that lies in the image.
fn filtered(values: &[f64], [height, width]: [usize; 2], window: &[f64]) -> Vec<f64> {
    let columns = width - window.len() + 1;
    let mut narrow = Vec::with_capacity(height * columns);
    for row in values.chunks_exact(width) {
        let dot = |part: &[f64]| part.iter().zip(window).map(|(v, w)| v * w).sum::<f64>();
        narrow.extend(row.windows(window.len()).map(dot));
    }
    let rows = height - window.len() + 1;
    let at = |i: usize| {
        let (row, column) = (i / columns, i % columns);
        let below = |(k, w): (usize, &f64)| narrow[(row + k) * columns + column] * w;
        window.iter().enumerate().map(below).sum::<f64>()
    };
    (0..rows * columns).map(at).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn images(shape: [usize; 3], seed: usize) -> Vec<f32> {
        let count = shape.iter().product();
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 0.3;
        (0..count).map(value).collect()
    }

    /// Scores as scikit-image gives them: `[shape, a, b, range]` in, numbers out.
    fn reference(cases: &[serde_json::Value]) -> Vec<f64> {
        let python = std::env::var("CLEAVE_TEST_PYTHON")
            .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/ssim_reference.py");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cases.json");
        std::fs::write(&path, serde_json::to_vec(cases).unwrap()).unwrap();
        let output = Command::new(python).arg(script).arg(path).output().expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn scores_are_those_of_scikit_image() {
        let shapes = [[1, 8, 8], [1, 3, 3], [3, 6, 9], [1, 11, 11], [3, 32, 27], [2, 10, 40]];
        let (mut cases, mut ours) = (Vec::new(), Vec::new());
        for (i, shape) in shapes.into_iter().enumerate() {
            let a = images(shape, i);
            let other = images(shape, i + 50);
            let b: Vec<f32> = a.iter().zip(&other).map(|(a, o)| 0.7 * a + 0.2 * o).collect();
            cases.push(serde_json::json!({ "shape": shape, "a": a, "b": b, "range": 2.0 }));
            ours.push(ssim(&a, &b, shape, 2.0).unwrap());
        }
        for ((ours, theirs), shape) in ours.iter().zip(reference(&cases)).zip(shapes) {
            assert!((ours - theirs).abs() < 1e-9, "{shape:?}: {ours} {theirs}");
            assert!((0.1..0.99).contains(ours), "{shape:?}: {ours}");
        }
    }

    #[test]
    fn equal_images_are_as_similar_as_can_be() {
        let image = images([1, 8, 8], 1);
        assert!((ssim(&image, &image, [1, 8, 8], 2.0).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(ssim(&[0.5; 4], &[0.5; 4], [1, 2, 2], 1.0), None);
        let originals = Samples { shape: vec![4], values: vec![0.0, 1.0, 2.0, 3.0] };
        let rebuilt = Samples { shape: vec![4], values: vec![0.5, 1.5, 2.5, 3.5] };
        let quality = Quality::of(&originals, &rebuilt, 3.0);
        assert_eq!((quality.mse, quality.ssim), (0.25, None));
        assert!((quality.psnr - 10.0 * 36f64.log10()).abs() < 1e-12);
    }
}
