//! Convolution without a gradient, in little memory: patches of the map become columns, a band of them
//! at a time, and the kernels, as they lie, times a band are its outputs.
//!
//! burn's convolution copies all kernels and the whole map into other layouts on each call. For a
//! ResNet-50 that is up to 9 MiB beside the weights and most of what a node needs beyond them. It stays
//! where a gradient is wanted.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};

use super::conv::Window;

/// Size of a band, bytes: large enough for the product to be quick, small beside the map.
const BAND_BYTES: usize = 1 << 20;

/// One channel of all samples, and where the windows stand in it.
struct Geometry {
    window: Window,
    channels: usize,
    /// Extents of the map, and of the output.
    input: [usize; 2],
    output: [usize; 2],
}

/// `x` `[batch, in, height, width]`, `weight` `[out, in, size, size]` → `[batch, out, height', width']`;
/// the window must fit.
pub(super) fn convolve(x: Tensor<4>, weight: Tensor<4>, window: Window) -> Tensor<4> {
    let device = x.device();
    let [batch, channels, height, width] = x.dims();
    let output = [window.output(height), window.output(width)];
    let shape = Geometry { window, channels, input: [height, width], output };
    let [filters, ..] = weight.dims();
    let kernels: Tensor<2> = weight.reshape([filters, shape.taps()]);
    let map = x.into_data();
    let map: &[f32] = map.as_slice().expect("activations are f32");
    let mut out = vec![0.0f32; batch * filters * output[0] * output[1]];
    // A line is one row of one sample's output.
    let lines = batch * output[0];
    let most = (BAND_BYTES / (shape.taps() * output[1] * size_of::<f32>())).max(1);
    let mut patches = Vec::new();
    for first in (0..lines).step_by(most) {
        let band = first..lines.min(first + most);
        shape.gather(map, band.clone(), &mut patches);
        let columns = TensorData::new(patches, [shape.taps(), band.len() * output[1]]);
        let columns = Tensor::from_data(columns, &device);
        let product = kernels.clone().matmul(columns.clone()).into_data();
        shape.put(product.as_slice().expect("a product of f32"), band, filters, &mut out);
        // The same memory for the next band: pages that are new cost more than what is put in them.
        patches = columns.into_data().try_into_vec().expect("columns of f32");
    }
    Tensor::from_data(TensorData::new(out, [batch, filters, output[0], output[1]]), &device)
}

impl Geometry {
    /// Values of one patch.
    fn taps(&self) -> usize {
        self.channels * self.window.size.pow(2)
    }

    /// `[taps, lines × width']`: a row has one tap of every patch; what is padded is zero.
    fn gather(&self, map: &[f32], band: Range<usize>, patches: &mut Vec<f32>) {
        let ([height, width], [rows, columns]) = (self.input, self.output);
        let Window { size, stride, padding } = self.window;
        patches.clear();
        patches.resize(self.taps() * band.len() * columns, 0.0);
        for (tap, row) in patches.chunks_exact_mut(band.len() * columns).enumerate() {
            let (channel, dy, dx) = (tap / (size * size), tap / size % size, tap % size);
            // Outputs whose tap is on the map: `padding <= stride * i + dx < padding + width`.
            let begin = padding.saturating_sub(dx).div_ceil(stride);
            let end = (padding + width).saturating_sub(dx).div_ceil(stride).min(columns);
            for (line, target) in band.clone().zip(row.chunks_exact_mut(columns)) {
                let (sample, y) = (line / rows, line % rows * stride + dy);
                if begin >= end || !(padding..padding + height).contains(&y) {
                    continue;
                }
                let plane = sample * self.channels + channel;
                let source = &map[(plane * height + y - padding) * width..][..width];
                let source = &source[begin * stride + dx - padding..];
                let target = &mut target[begin..end];
                match stride {
                    1 => target.copy_from_slice(&source[..target.len()]),
                    _ => target
                        .iter_mut()
                        .zip(source.iter().step_by(stride))
                        .for_each(|(t, s)| *t = *s),
                }
            }
        }
    }

    /// Puts the product `[filters, lines × width']` of a band where it belongs in the output.
    fn put(&self, product: &[f32], band: Range<usize>, filters: usize, out: &mut [f32]) {
        let [rows, columns] = self.output;
        for (filter, row) in product.chunks_exact(band.len() * columns).enumerate() {
            let mut line = band.start;
            let mut row = row;
            while !row.is_empty() {
                // Lines of one sample lie one behind the other.
                let (sample, y) = (line / rows, line % rows);
                let count = (rows - y).min(band.end - line);
                let (these, rest) = row.split_at(count * columns);
                out[((sample * filters + filter) * rows + y) * columns..][..these.len()]
                    .copy_from_slice(these);
                (line, row) = (line + count, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, module::conv2d, ops::ConvOptions};

    use super::*;

    #[test]
    fn a_convolution_in_bands_is_burns() {
        let device = Device::flex();
        // batch, in, out, height, width, size, stride, padding; several bands, and samples in one.
        let cases = [
            [1, 3, 8, 9, 7, 3, 1, 1],
            [5, 4, 6, 5, 5, 3, 2, 1],
            [2, 3, 4, 31, 40, 7, 2, 3],
            [3, 16, 5, 6, 4, 1, 2, 0],
            [1, 64, 8, 70, 90, 3, 1, 1],
            [2, 2, 3, 4, 3, 5, 3, 4],
            [1, 1, 1, 1, 1, 3, 1, 1],
        ];
        for case in cases {
            let [batch, input, output, height, width, size, stride, padding] = case;
            let random = |shape: [usize; 4]| {
                Tensor::<4>::random(shape, Distribution::Uniform(-1.0, 1.0), &device)
            };
            let x = random([batch, input, height, width]);
            let weight = random([output, input, size, size]);
            let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
            let expected = conv2d(x.clone(), weight.clone(), None, options);
            let found = convolve(x, weight, Window { size, stride, padding });
            assert_eq!(found.dims(), expected.dims(), "{case:?}");
            let worst = (found - expected).abs().max().into_scalar::<f32>();
            assert!(worst < 1e-5 * (input * size * size) as f32, "{case:?}: {worst}");
        }
    }
}
