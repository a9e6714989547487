//! The attacker's network: from an activation back to an input.
//!
//! Maps go through 3×3 convolutions, doubled in size between them until they have the input's. What is
//! no map, such as the output of a dense layer, is first made a small map by dense layers; if the input
//! is no image, dense layers are all there is. Doubling repeats values and leaves the rest to the next
//! convolution: transposed convolutions leave a checkerboard (Odena, Dumoulin and Olah, Distill 2016).

use burn::{
    module::{Module, Param},
    tensor::{
        Device, Int, Tensor,
        activation::relu,
        module::{conv2d, linear},
        ops::ConvOptions,
    },
};
use cleave_shared::model::{Init, ModelError, Params, SeededWeights};

/// Channels between convolutions.
const CHANNELS: usize = 32;
/// Width of dense layers.
const HIDDEN: usize = 256;
/// Dense layers make a map of at most this height and width.
const SMALLEST: usize = 8;

#[derive(Module, Debug)]
struct Dense {
    /// `[out, in]`
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Conv {
    /// `[out, in, 3, 3]`
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

/// `[batch, values of the activation]` → `[batch, values of the input]`
#[derive(Module, Debug)]
pub struct Decoder {
    dense: Vec<Dense>,
    convs: Vec<Conv>,
    /// The map that the first convolution takes.
    #[module(skip)]
    map: [usize; 3],
    /// Height and width that each convolution works at.
    #[module(skip)]
    sizes: Vec<[usize; 2]>,
}

impl Decoder {
    /// For activations and inputs of these shapes, without the batch; the same seed is the same network.
    pub fn new(
        smashed: &[usize],
        input: &[usize],
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut weights = SeededWeights(seed);
        let mut params = Params::new(&mut weights, device);
        let width: usize = smashed.iter().product();
        let [channels, target @ ..] = match *input {
            [channels, height, width] => [channels, height, width],
            _ => {
                let widths = [width, HIDDEN, HIDDEN, input.iter().product()];
                let (map, sizes) = ([0; 3], Vec::new());
                return Ok(Self {
                    dense: dense(&widths, &mut params)?,
                    convs: Vec::new(),
                    map,
                    sizes,
                });
            }
        };
        let (map, dense) = match *smashed {
            [channels, height, width] => ([channels, height, width], Vec::new()),
            _ => {
                let [height, columns] = small(target);
                let map = [CHANNELS, height, columns];
                (map, dense(&[width, HIDDEN, map.iter().product()], &mut params)?)
            }
        };
        let sizes = sizes([map[1], map[2]], target);
        let last = sizes.len() - 1;
        let conv = |i: usize| {
            let input = if i == 0 { map[0] } else { CHANNELS };
            let output = if i == last { channels } else { CHANNELS };
            let (name, fan_in) = (format!("decoder.conv{i}"), Init::FanIn(input * 9));
            Ok(Conv {
                weight: params.param(&format!("{name}.weight"), [output, input, 3, 3], fan_in)?,
                bias: params.param(&format!("{name}.bias"), [output], fan_in)?,
            })
        };
        let convs = (0..sizes.len()).map(conv).collect::<Result<_, ModelError>>()?;
        Ok(Self { dense, convs, map, sizes })
    }

    pub fn forward(&self, smashed: Tensor<2>) -> Tensor<2> {
        let mut x = smashed;
        for (i, layer) in self.dense.iter().enumerate() {
            x = linear(x, layer.weight.val().transpose(), Some(layer.bias.val()));
            if i + 1 < self.dense.len() || !self.convs.is_empty() {
                x = relu(x);
            }
        }
        if self.convs.is_empty() {
            return x;
        }
        let [batch, _] = x.dims();
        let mut x = x.reshape([batch, self.map[0], self.map[1], self.map[2]]);
        for (i, (conv, &size)) in self.convs.iter().zip(&self.sizes).enumerate() {
            let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
            x = conv2d(resized(x, size), conv.weight.val(), Some(conv.bias.val()), options);
            if i + 1 < self.convs.len() {
                x = relu(x);
            }
        }
        x.flatten(1, 3)
    }
}

fn dense(widths: &[usize], params: &mut Params<'_>) -> Result<Vec<Dense>, ModelError> {
    let layer = |(i, pair): (usize, &[usize])| {
        let (name, fan_in) = (format!("decoder.fc{i}"), Init::FanIn(pair[0]));
        Ok(Dense {
            weight: params.param(&format!("{name}.weight"), [pair[1], pair[0]], fan_in)?,
            bias: params.param(&format!("{name}.bias"), [pair[1]], fan_in)?,
        })
    };
    widths.windows(2).enumerate().map(layer).collect()
}

/// Halved until both extents are small.
fn small(size: [usize; 2]) -> [usize; 2] {
    match size.iter().all(|&extent| extent <= SMALLEST) {
        true => size,
        false => small(size.map(|extent| extent.div_ceil(2))),
    }
}

/// Where convolutions work: at the map's own size, then at twice the last, then once more at the target.
fn sizes(map: [usize; 2], target: [usize; 2]) -> Vec<[usize; 2]> {
    let mut sizes = vec![map];
    let mut size = map;
    while size != target {
        size = [0, 1].map(|i| target[i].min(2 * size[i]));
        sizes.push(size);
    }
    sizes.extend([target; 2]);
    sizes
}

/// The nearest value of each place.
fn resized(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let nearest = |from: usize, to: usize, device: &Device| {
        let places: Vec<i64> = (0..to).map(|i| (i * from / to) as i64).collect();
        Tensor::<1, Int>::from_data(&places[..], device)
    };
    if [height, width] == size {
        return x;
    }
    let device = x.device();
    x.select(2, nearest(height, size[0], &device)).select(3, nearest(width, size[1], &device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activation_becomes_an_input() {
        let device = Device::flex();
        for (smashed, input) in [
            (&[32, 8, 8][..], &[1, 8, 8][..]),
            (&[64, 2, 2], &[1, 8, 8]),
            (&[10], &[1, 8, 8]),
            (&[4, 5, 3], &[3, 20, 17]),
            (&[7], &[3, 20, 17]),
            (&[5, 6], &[3, 20, 17]),
            (&[2, 3, 3], &[13]),
            (&[16], &[4, 9]),
        ] {
            let decoder = Decoder::new(smashed, input, 1, &device).unwrap();
            let x = Tensor::<2>::ones([2, smashed.iter().product()], &device);
            assert_eq!(decoder.forward(x).dims(), [2, input.iter().product()], "{smashed:?}");
        }
    }

    #[test]
    fn maps_double_until_they_have_the_inputs_size() {
        assert_eq!(sizes([2, 2], [8, 8]), [[2, 2], [4, 4], [8, 8], [8, 8], [8, 8]]);
        assert_eq!(
            sizes([5, 3], [20, 17]),
            [[5, 3], [10, 6], [20, 12], [20, 17], [20, 17], [20, 17]]
        );
        assert_eq!(small([224, 160]), [7, 5]);
        let x = Tensor::<4>::from_data([[[[1.0, 2.0], [3.0, 4.0]]]], &Device::flex());
        let data = resized(x, [4, 3]).into_data();
        let values: Vec<f32> = data.iter().collect();
        assert_eq!(values, [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 3.0, 3.0, 4.0]);
    }
}
