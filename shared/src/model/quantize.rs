//! Weights in 8 or 4 bits: what a segment for inference keeps in memory instead of floats.
//!
//! Each output channel of a weight matrix has one scale, `max |w| / 127` (or `/ 7`), and its weights
//! are the nearest whole multiples of it: burn's symmetric schemes `Q8S` and `Q4S`, whose blocks are
//! too short for a channel (255 at most), applied to the matrix divided by its channels' scales. Two
//! 4-bit values share a byte; burn's CPU backend would keep each in a byte of its own.
//!
//! A layer that runs gets its matrix back as floats for as long as it needs it: activations and sums
//! stay FP32 (weight-only quantisation), and every model runs unchanged. The same weights give the
//! same bits on either side of a cut.

use std::{collections::HashMap, sync::Arc};

use burn::{
    module::{Module, Param, ParamId, Reparameterization, Reparameterizer},
    tensor::{
        Tensor, TensorData,
        quantization::{QuantScheme, QuantStore, QuantValue, QuantizationParameters},
    },
};
use serde::{Deserialize, Serialize};

use super::{matrices::is_weight_matrix, params::ParamNames};

/// How weight matrices are kept for inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum WeightFormat {
    /// FP32, as they were trained.
    #[default]
    #[serde(rename = "none")]
    Full,
    #[serde(rename = "int8")]
    Int8,
    #[serde(rename = "int4")]
    Int4,
}

impl WeightFormat {
    /// The name in the configuration and in the handshake.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "none",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    fn value(self) -> Option<QuantValue> {
        match self {
            Self::Full => None,
            Self::Int8 => Some(QuantValue::Q8S),
            Self::Int4 => Some(QuantValue::Q4S),
        }
    }
}

/// The matrix of one layer in few bits.
#[derive(Debug)]
struct Packed {
    shape: Vec<usize>,
    /// Row-major; two to a byte, the first in the low half, if `half`.
    values: Vec<u8>,
    half: bool,
    /// One a channel: the first dimension, or the last if `input_major`.
    scales: Vec<f32>,
    input_major: bool,
}

impl Packed {
    /// `weight` is `[out, ...]`, or `[in, out]` if `input_major`.
    fn new<const D: usize>(weight: Tensor<D>, value: QuantValue, input_major: bool) -> Self {
        let shape = weight.dims().to_vec();
        let columns = if input_major { shape[D - 1] } else { shape[1..].iter().product() };
        let rows = shape.iter().product::<usize>() / columns.max(1);
        let matrix = weight.reshape([rows, columns]);
        let (low, high) = value.range();
        let most = matrix.clone().abs().max_dim(usize::from(!input_major));
        // A channel of zeros has any scale but zero.
        let scales = (most * 2.0 / (high - low)).clamp_min(f32::MIN_POSITIVE);
        let scheme = QuantScheme::default().with_value(value).with_store(QuantStore::Native);
        let unit = Tensor::ones([1], &matrix.device());
        let unit = QuantizationParameters { scales: unit, global: None };
        let data = (matrix / scales.clone()).quantize(&scheme, unit).into_data();
        // Behind the values burn writes its own scale, the 1 above.
        let bytes = &data.as_bytes()[..rows * columns];
        let half = value == QuantValue::Q4S;
        let values = if half { pack(bytes) } else { bytes.to_vec() };
        let scales = scales.into_data().iter::<f32>().collect();
        Self { shape, values, half, scales, input_major }
    }

    fn floats(&self) -> Vec<f32> {
        let count: usize = self.shape.iter().product();
        let mut floats: Vec<f32> = if self.half {
            let pairs = self
                .values
                .iter()
                .flat_map(|&byte| [f32::from((byte << 4) as i8 >> 4), f32::from(byte as i8 >> 4)]);
            pairs.take(count).collect()
        } else {
            self.values.iter().map(|&byte| f32::from(byte as i8)).collect()
        };
        let scales = &self.scales;
        if self.input_major {
            for row in floats.chunks_exact_mut(scales.len().max(1)) {
                row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
            }
        } else {
            let columns = (count / scales.len().max(1)).max(1);
            for (row, scale) in floats.chunks_exact_mut(columns).zip(scales) {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
        floats
    }

    fn bytes(&self) -> usize {
        self.values.len() + self.scales.len() * size_of::<f32>()
    }
}

/// Two values of -7..=7 to a byte.
fn pack(values: &[u8]) -> Vec<u8> {
    let pair = |pair: &[u8]| (pair[0] & 0x0f) | pair.get(1).map_or(0, |high| high << 4);
    values.chunks(2).map(pair).collect()
}

/// What a quantised parameter's value is computed from; its own tensor is a single zero, expanded.
#[derive(Module, Debug)]
pub(super) struct Quantized {
    #[module(skip)]
    packed: Arc<Packed>,
}

impl Reparameterization for Quantized {
    const NAME: &'static str = "quantized";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let data = TensorData::new(self.packed.floats(), self.packed.shape.clone());
        Tensor::from_data(data, &base.device())
    }
}

/// Quantises the weight matrices of a stage.
pub(super) struct Quantizer<'a> {
    pub names: &'a ParamNames,
    pub format: WeightFormat,
    /// See [`super::ModelFamily::is_input_major`].
    pub is_input_major: &'a dyn Fn(&str) -> bool,
    /// Bytes of each matrix.
    pub bytes: HashMap<ParamId, usize>,
}

/// The reparameterizer is consumed by burn; what it learned stays with the caller.
impl Reparameterizer for &mut Quantizer<'_> {
    type Reparam = Quantized;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Quantized>) {
        let Some(name) = self.names.get(&param.id) else { return (param, None) };
        let (Some(value), true) = (self.format.value(), is_weight_matrix(name, D)) else {
            return (param, None);
        };
        let (id, shape) = (param.id, param.dims());
        let packed = Packed::new(param.val(), value, (self.is_input_major)(name));
        self.bytes.insert(id, packed.bytes());
        let place = param.map(|weight| Tensor::<D>::zeros([1; D], &weight.device()).expand(shape));
        (place, Some(Quantized { packed: Arc::new(packed) }))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    fn matrix(rows: usize, columns: usize, values: &[f32]) -> Tensor<2> {
        let values: Vec<f32> = values.iter().cycle().take(rows * columns).copied().collect();
        Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
    }

    proptest! {
        #[test]
        fn a_weight_moves_by_half_a_step_at_most(
            rows in 1usize..6, columns in 1usize..9, four: bool, input_major: bool,
            values in prop::collection::vec(-3.0f32..3.0, 1..60),
        ) {
            let weight = matrix(rows, columns, &values);
            let value = if four { QuantValue::Q4S } else { QuantValue::Q8S };
            let packed = Packed::new(weight.clone(), value, input_major);
            let found = packed.floats();
            let expected: Vec<f32> = weight.into_data().iter::<f32>().collect();
            prop_assert_eq!(found.len(), expected.len());
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let scale = packed.scales[if input_major { i % columns } else { i / columns }];
                let most = scale * 0.5 * (1.0 + 1e-5);
                prop_assert!((found - expected).abs() <= most, "{found} for {expected}, {scale}");
            }
        }

        #[test]
        fn nibbles_come_back(values in prop::collection::vec(-7i8..=7, 0..20)) {
            let bytes: Vec<u8> = values.iter().map(|&v| v as u8).collect();
            let packed = Packed {
                shape: vec![values.len()], values: pack(&bytes), half: true,
                scales: vec![1.0; values.len()], input_major: false,
            };
            let expected: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
            prop_assert_eq!(packed.floats(), expected);
        }
    }

    #[test]
    fn a_channel_is_quantised_as_burn_quantises_a_tensor() {
        let values: Vec<f32> = (0..40).map(|i| ((i * 37 % 41) as f32 - 20.0) / 13.0).collect();
        let weight = matrix(4, 10, &values);
        for value in [QuantValue::Q8S, QuantValue::Q4S] {
            let found = Packed::new(weight.clone(), value, false).floats();
            let scheme = QuantScheme::default().with_value(value).with_store(QuantStore::Native);
            for row in 0..4 {
                let channel = weight.clone().slice([row..row + 1, 0..10]);
                let expected = channel.quantize_dynamic(&scheme).dequantize().into_data();
                let expected: Vec<f32> = expected.iter::<f32>().collect();
                assert_eq!(found[row * 10..][..10], expected, "{value:?}, channel {row}");
            }
        }
    }

    #[test]
    fn a_channel_of_zeros_stays_one() {
        let packed = Packed::new(matrix(2, 3, &[0.0]), QuantValue::Q4S, false);
        assert_eq!(packed.floats(), [0.0; 6]);
    }
}
