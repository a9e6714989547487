//! Bounds each sample's activation and adds Gaussian noise to it, before it leaves the edge.
//!
//! A sample's float tensors together are scaled so that their L2 norm is at most `clip`, then every
//! value gets noise of standard deviation `noise_multiplier * clip`. Both are part of the head's
//! graph: the gradient that comes back flows through the scaling, noise is a constant.
//!
//! The noise of a sample follows from the key, the step and the sample's place in the batch: a step
//! that is repeated after a fault sends the same bytes again, which tell nothing new, and a batch cut
//! into micro-batches gets the noise of the whole. Whoever has the key can take the noise away, so it
//! is drawn by the operating system, stays on the edge, and is not the run's seed, which the cloud
//! knows.

use std::{fs, io, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng, TryRng, rngs::SysRng};
use rand_chacha::ChaCha20Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};

use super::{PrivacySpec, nopeek};
use crate::{
    checkpoint::{CheckpointError, write_atomic},
    model::{Activation, ModelError},
    wire::NamedTensors,
};

/// The secret that noise is drawn from.
#[derive(Clone)]
pub struct NoiseKey([u8; 32]);

impl NoiseKey {
    /// A key that somebody else can compute: for measurements that must be repeatable.
    pub fn from_seed(seed: u64) -> Self {
        Self(digest(&[b"cleave:noise-seed:v1", &seed.to_le_bytes()]))
    }

    /// The key in this file, which is made with a new one if it is missing; readable by its owner
    /// only.
    pub fn load_or_create(path: &Path) -> Result<Self, CheckpointError> {
        let io_error = |source| CheckpointError::Io { path: path.display().to_string(), source };
        match fs::read(path) {
            Ok(bytes) => {
                let key = <[u8; 32]>::try_from(bytes).map_err(|found| {
                    let problem = format!("a noise key has 32 bytes, found {}", found.len());
                    CheckpointError::Corrupt { path: path.display().to_string(), problem }
                })?;
                Ok(Self(key))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(io_error)?;
                }
                let mut key = [0; 32];
                SysRng.try_fill_bytes(&mut key).map_err(|e| io_error(io::Error::other(e)))?;
                write_atomic(path, &key)?;
                owner_only(path).map_err(io_error)?;
                Ok(Self(key))
            }
            Err(e) => Err(io_error(e)),
        }
    }

    /// A key for another purpose, whose noise is unrelated: two different activations must never get
    /// the same noise, or their difference is free of it.
    pub fn derive(&self, purpose: &str) -> Self {
        Self(digest(&[b"cleave:noise-purpose:v1", &self.0, purpose.as_bytes()]))
    }

    fn generator(&self, step: u64, sample: u64) -> ChaCha20Rng {
        let (step, sample) = (step.to_le_bytes(), sample.to_le_bytes());
        ChaCha20Rng::from_seed(digest(&[b"cleave:noise:v1", &self.0, &step, &sample]))
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

#[cfg(unix)]
fn owner_only(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn owner_only(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Clips and noises the activations of one run.
pub struct Shield {
    clip: Option<f32>,
    /// Standard deviation of the noise; 0 is none.
    deviation: f32,
    key: NoiseKey,
    nopeek_alpha: Option<f64>,
}

impl Shield {
    pub fn new(spec: &PrivacySpec, key: NoiseKey) -> Self {
        let clip = spec.clip.map(|clip| clip as f32);
        let multiplier = spec.noise_multiplier.unwrap_or(0.0) as f32;
        let deviation = multiplier * clip.unwrap_or(0.0);
        Self { clip, deviation, key, nopeek_alpha: spec.nopeek_alpha }
    }

    /// [`Shield::apply`] in training, and the term that NoPeek adds to the head's loss: α times the
    /// distance correlation of the micro-batch, whose part of the step's loss is `share`.
    pub fn protect(
        &self,
        input: &Activation,
        output: Activation,
        step: u64,
        first_sample: usize,
        share: f64,
    ) -> (Activation, Option<Tensor<1>>) {
        let penalty = |alpha| nopeek::penalty(input, &output) * (alpha * share);
        let term = self.nopeek_alpha.map(penalty);
        (self.apply(output, step, first_sample), term)
    }

    /// The activation as it may be sent. `first_sample` is the place of its first sample in the batch
    /// of `step`. The first dimension of every tensor is the batch; integers (masks, lengths) stay.
    pub fn apply(&self, activation: Activation, step: u64, first_sample: usize) -> Activation {
        let Some(scale) = self.clip.and_then(|clip| scale(&activation, clip)) else {
            return activation;
        };
        let samples = first_sample..first_sample + scale.dims()[0];
        let mut draws: Vec<_> = samples.map(|i| self.key.generator(step, i as u64)).collect();
        activation.map(|value| match value.rows() {
            None => value,
            Some(rows) if self.deviation == 0.0 => value.with_rows(rows * scale.clone()),
            Some(rows) => {
                let noise = self.noise(&mut draws, rows.dims());
                let noise = Tensor::<2>::from_data(noise, &rows.device());
                value.with_rows(rows * scale.clone() + noise)
            }
        })
    }

    /// The same for host tensors, outside training.
    pub fn apply_host(
        &self,
        tensors: NamedTensors,
        step: u64,
        first_sample: usize,
    ) -> Result<NamedTensors, ModelError> {
        let activation = Activation::from_host(&tensors, &Device::flex())?;
        Ok(self.apply(activation, step, first_sample).into_host())
    }

    fn noise(&self, draws: &mut [ChaCha20Rng], [rows, columns]: [usize; 2]) -> TensorData {
        let mut values = Vec::with_capacity(rows * columns);
        for draw in draws {
            values.extend((0..columns).map(|_| {
                let normal: f32 = draw.sample(StandardNormal);
                normal * self.deviation
            }));
        }
        TensorData::new(values, [rows, columns])
    }
}

/// What each sample is multiplied by: `min(1, clip / norm)`, `[batch, 1]`; none without floats.
///
/// Written as `clip / sqrt(max(norm², clip²))`, whose derivative is finite at norm 0 too.
fn scale(activation: &Activation, clip: f32) -> Option<Tensor<2>> {
    let squares = activation.values().filter_map(|value| value.rows());
    let squares = squares.map(|rows| rows.square().sum_dim(1));
    let norm = squares.reduce(|sum, more| sum + more)?;
    Some(norm.clamp_min(clip * clip).sqrt().recip().mul_scalar(clip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Value, tensor::HostTensor};

    const BATCH: usize = 6;

    fn spec(clip: f64, noise_multiplier: Option<f64>) -> PrivacySpec {
        PrivacySpec { clip: Some(clip), noise_multiplier, ..PrivacySpec::default() }
    }

    /// Two tensors and a mask, the samples of different size.
    fn tensors(samples: std::ops::Range<usize>) -> NamedTensors {
        let count = samples.len();
        let values = |width: usize| -> Vec<f32> {
            let value =
                |s: usize, i: usize| (s * s) as f32 * ((i + 1) as f32 * 0.7 + s as f32).sin();
            samples.clone().flat_map(|s| (0..width).map(move |i| value(s, i))).collect()
        };
        vec![
            ("map".into(), HostTensor::from_f32(vec![count, 2, 2, 3], &values(12))),
            ("mask".into(), HostTensor::from_i64(vec![count, 2], &vec![1; 2 * count])),
            ("state".into(), HostTensor::from_f32(vec![count, 5], &values(5))),
        ]
    }

    fn shielded(shield: &Shield, tensors: &NamedTensors, step: u64, first: usize) -> NamedTensors {
        let activation = Activation::from_host(tensors, &Device::flex()).unwrap();
        shield.apply(activation, step, first).into_host()
    }

    /// The floats of each sample.
    fn samples(tensors: &NamedTensors) -> Vec<Vec<f32>> {
        let mut all = vec![Vec::new(); tensors[0].1.shape()[0]];
        for (_, tensor) in tensors {
            let Ok(values) = tensor.to_f32() else { continue };
            let width = values.len() / all.len();
            for (sample, values) in all.iter_mut().zip(values.chunks_exact(width)) {
                sample.extend(values);
            }
        }
        all
    }

    fn norm(sample: &[f32]) -> f64 {
        sample.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn large_samples_are_scaled_and_small_ones_stay() {
        let plain = tensors(0..BATCH);
        let shield = Shield::new(&spec(4.0, None), NoiseKey::from_seed(1));
        let clipped = shielded(&shield, &plain, 1, 0);
        assert_eq!(clipped[1], plain[1], "the mask");
        let (before, after) = (samples(&plain), samples(&clipped));
        let larger = before.iter().filter(|s| norm(s) > 4.0).count();
        assert!((1..BATCH - 1).contains(&larger), "{larger} samples are large");
        for (before, after) in before.iter().zip(&after) {
            match norm(before) > 4.0 {
                false => assert_eq!(before, after, "bit for bit"),
                true => {
                    assert!((norm(after) - 4.0).abs() < 1e-5);
                    let ratio = norm(after) / norm(before);
                    let same = |(b, a): (&f32, &f32)| (f64::from(*b) * ratio - f64::from(*a)).abs();
                    assert!(before.iter().zip(after).map(same).fold(0.0, f64::max) < 1e-5);
                }
            }
        }
    }

    #[test]
    fn noise_does_not_depend_on_how_a_batch_is_cut() {
        let shield = Shield::new(&spec(2.0, Some(0.5)), NoiseKey::from_seed(1));
        let whole = samples(&shielded(&shield, &tensors(0..BATCH), 7, 0));
        for cut in 1..BATCH {
            let parts = [0..cut, cut..BATCH];
            let parts = parts
                .map(|part| samples(&shielded(&shield, &tensors(part.clone()), 7, part.start)));
            assert_eq!(parts.concat(), whole, "cut at {cut}");
        }
        let other = |step, key| {
            let shield = Shield::new(&spec(2.0, Some(0.5)), key);
            samples(&shielded(&shield, &tensors(0..BATCH), step, 0))
        };
        assert_eq!(other(7, NoiseKey::from_seed(1)), whole);
        assert_ne!(other(8, NoiseKey::from_seed(1)), whole);
        assert_ne!(other(7, NoiseKey::from_seed(2)), whole);
        assert_ne!(other(7, NoiseKey::from_seed(1).derive("validation")), whole);
    }

    #[test]
    fn noise_is_normal_with_the_deviation_that_was_asked_for() {
        let shield = Shield::new(&spec(2.0, Some(1.5)), NoiseKey::from_seed(3));
        let zeros = vec![("x".to_string(), HostTensor::from_f32(vec![8, 5000], &[0.0; 40_000]))];
        let mut noise = samples(&shielded(&shield, &zeros, 1, 0)).concat();
        let count = noise.len() as f64;
        let mean = noise.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        assert!(mean.abs() < 4.0 * 3.0 / count.sqrt(), "{mean}");
        assert!((norm(&noise) / count.sqrt() - 3.0).abs() < 0.05);
        // Kolmogorov and Smirnov: the largest gap to the normal distribution, at a level of 0.1 %.
        noise.sort_by(f32::total_cmp);
        let below = |v: f32| libm::erfc(-f64::from(v) / (3.0 * std::f64::consts::SQRT_2)) / 2.0;
        let gap = |(i, v): (usize, &f32)| (below(*v) - (i as f64 + 0.5) / count).abs();
        let gap = noise.iter().enumerate().map(gap).fold(0.0, f64::max);
        assert!(gap < 1.95 / count.sqrt(), "{gap}");
        // Neighbours are unrelated.
        let rows = samples(&shielded(&shield, &zeros, 1, 0));
        let product: f64 = rows[0].iter().zip(&rows[1]).map(|(a, b)| f64::from(a * b)).sum();
        assert!((product / 5000.0 / 9.0).abs() < 4.0 / 5000f64.sqrt());
    }

    #[test]
    fn a_key_is_kept_and_belongs_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.key");
        let first = NoiseKey::load_or_create(&path).unwrap();
        assert!(first.0 == NoiseKey::load_or_create(&path).unwrap().0);
        let other = NoiseKey::load_or_create(&folder.path().join("other.key")).unwrap();
        assert!(first.0 != other.0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, b"short").unwrap();
        let error = NoiseKey::load_or_create(&path).err().unwrap().to_string();
        assert!(error.contains("noise.key") && error.contains("32 bytes, found 5"), "{error}");
    }

    #[test]
    fn an_activation_of_zeros_has_a_finite_gradient() {
        let zeros = vec![("x".to_string(), HostTensor::from_f32(vec![2, 3], &[0.0; 6]))];
        let input =
            Activation::from_host(&zeros, &Device::flex().autodiff()).unwrap().require_grad();
        let shield = Shield::new(&spec(1.0, Some(1.0)), NoiseKey::from_seed(1));
        let Ok(Value::R2(output)) = shield.apply(input.clone(), 1, 0).into_single("test") else {
            panic!("one matrix")
        };
        let gradient = input.grads(&output.sum().backward()).into_host();
        assert_eq!(gradient[0].1.to_f32().unwrap(), [1.0; 6]);
    }
}
