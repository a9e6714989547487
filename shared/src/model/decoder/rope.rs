//! Rotary position embedding: Su et al., "RoFormer" (2021).
//!
//! Hugging Face's layout: a head's features `i` and `i + width/2` are the two coordinates that are
//! rotated by `position · theta^(-2i/width)`.

use burn::tensor::{Device, Tensor, TensorData};

/// How Llama 3.1 and later stretch their positions: slow rotations are slowed down by `factor`, quick
/// ones are left, those between are blended. The names are those of Hugging Face's `rope_scaling` of
/// type `llama3`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RopeScaling {
    pub factor: f32,
    pub low_freq_factor: f32,
    pub high_freq_factor: f32,
    pub original_max_position_embeddings: usize,
}

/// The rotations of one model: their angular frequencies, radians a position, `width / 2` of them.
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f32>,
}

impl Rope {
    /// For heads of `width` features, an even number.
    pub fn new(width: usize, theta: f32, scaling: Option<&RopeScaling>) -> Self {
        let frequency = |i: usize| {
            let plain = 1.0 / theta.powf((2 * i) as f32 / width as f32);
            scaling.map_or(plain, |s| s.apply(plain))
        };
        Self { frequencies: (0..width / 2).map(frequency).collect() }
    }

    /// Cosines and sines of `count` positions from `start`, each `[1, 1, count, width]`.
    pub fn at(&self, start: usize, count: usize, device: &Device) -> (Tensor<4>, Tensor<4>) {
        let width = 2 * self.frequencies.len();
        let table = |of: fn(f32) -> f32| {
            let row = |position: usize| {
                let half = self.frequencies.iter().map(move |f| of(position as f32 * f));
                half.clone().chain(half)
            };
            let values: Vec<f32> = (start..start + count).flat_map(row).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, count, width]), device)
        };
        (table(f32::cos), table(f32::sin))
    }
}

/// Rotates `[batch, heads, sequence, width]` by the angles of [`Rope::at`].
pub fn rotate(x: Tensor<4>, (cos, sin): &(Tensor<4>, Tensor<4>)) -> Tensor<4> {
    let width = x.dims()[3];
    let (low, high) =
        (x.clone().narrow(3, 0, width / 2), x.clone().narrow(3, width / 2, width / 2));
    let turned = Tensor::cat(vec![high.neg(), low], 3);
    x * cos.clone() + turned * sin.clone()
}

impl RopeScaling {
    fn apply(&self, frequency: f32) -> f32 {
        let wavelength = std::f32::consts::TAU / frequency;
        let original = self.original_max_position_embeddings as f32;
        if wavelength < original / self.high_freq_factor {
            return frequency;
        }
        if wavelength > original / self.low_freq_factor {
            return frequency / self.factor;
        }
        let span = self.high_freq_factor - self.low_freq_factor;
        let smooth = (original / wavelength - self.low_freq_factor) / span;
        (1.0 - smooth) * frequency / self.factor + smooth * frequency
    }

    /// A reason why these numbers make no sense.
    pub fn check(&self) -> Result<(), String> {
        let ordered = self.low_freq_factor > 0.0 && self.low_freq_factor < self.high_freq_factor;
        if self.factor >= 1.0 && ordered && self.original_max_position_embeddings > 0 {
            return Ok(());
        }
        Err("rope_scaling: needs factor >= 1 and 0 < low_freq_factor < high_freq_factor".into())
    }
}
