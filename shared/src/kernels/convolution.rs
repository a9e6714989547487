//! Convolution as products of matrices: the kernel's weights, as they lie, times the patches of a part of the image.
//!
//! Images are `[batch, channels, height, width]`, weights `[outputs, channels, size, size]`. What is computed for one image
//! does not depend on the others of its batch, nor any of it on the number of threads, to the last bit.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    columns,
    multiply::{Into, Matrix, multiply},
};

/// Patches that are gathered at once, in floats: what a core's second-level cache holds, with room for the weights.
const GATHERED: usize = 128 << 10;
/// Products below this many multiplications are not worth a second thread.
const SMALL: usize = 1 << 20;
/// Weights up to this many have a gradient for each of [`PARTS`] parts of the batch, which are then added.
const FEW_WEIGHTS: usize = 64 << 10;
const PARTS: usize = 8;

/// What goes in, and how the kernel moves over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub batch: usize,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub outputs: usize,
    pub size: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Shape {
    pub fn out_height(&self) -> usize {
        self.extent(self.height)
    }

    pub fn out_width(&self) -> usize {
        self.extent(self.width)
    }

    fn extent(&self, of: usize) -> usize {
        (of + 2 * self.padding - self.size) / self.stride + 1
    }

    /// Weights of one output.
    fn taps(&self) -> usize {
        self.channels * self.size * self.size
    }

    fn weights(&self) -> usize {
        self.outputs * self.taps()
    }

    fn image(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Of one output.
    fn places(&self) -> usize {
        self.out_height() * self.out_width()
    }

    fn map(&self) -> usize {
        self.outputs * self.places()
    }

    /// A kernel of one place that stands on each: its patches are the image.
    fn is_pointwise(&self) -> bool {
        (self.size, self.stride, self.padding) == (1, 1, 0)
    }

    /// Rows of the output whose patches are gathered at once.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let height = self.out_height();
        let rows = (GATHERED / (self.taps() * self.out_width())).clamp(1, height);
        (0..height).step_by(rows).map(move |y| y..(y + rows).min(height))
    }

    /// Whether each image is one thread's, rather than all threads' together.
    fn is_many(&self) -> bool {
        self.batch >= rayon::current_num_threads() || self.weights() * self.places() < SMALL
    }
}

/// The patches of some rows, gathered into `room` if they do not lie there already.
fn patches<'a>(
    room: &'a mut Vec<f32>,
    image: &'a [f32],
    shape: &Shape,
    rows: &Range<usize>,
    shared: bool,
) -> Matrix<'a> {
    let (taps, width) = (shape.taps(), shape.out_width());
    let count = rows.len() * width;
    if shape.is_pointwise() {
        return Matrix::strided(&image[rows.start * width..], taps, count, shape.places());
    }
    room.resize(taps * count, 0.0);
    match shared {
        true => room
            .par_chunks_exact_mut(count)
            .enumerate()
            .for_each(|(k, line)| columns::fill(line, image, shape, rows, k)),
        false => columns::gather(room, image, shape, rows),
    }
    Matrix::new(room, taps, count)
}

/// `[batch, outputs, height', width']`
pub fn forward(shape: &Shape, x: &[f32], weights: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = vec![0.0; shape.batch * shape.map()];
    let image = |room: &mut Vec<f32>, out: &mut [f32], x: &[f32], shared| {
        if let Some(bias) = bias {
            let maps = out.chunks_exact_mut(shape.places());
            maps.zip(bias).for_each(|(map, bias)| map.fill(*bias));
        }
        for rows in shape.tiles() {
            let start = rows.start * shape.out_width();
            let patches = patches(room, x, shape, &rows, shared);
            let into = Into { data: &mut out[start..], stride: shape.places() };
            let weights = Matrix::new(weights, shape.outputs, shape.taps());
            multiply(into, weights, patches, bias.is_some(), shared);
        }
    };
    each(shape, &mut out, shape.map(), x, shape.image(), image);
    out
}

/// The gradient of the images.
pub fn backward_images(shape: &Shape, gradient: &[f32], weights: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; shape.batch * shape.image()];
    let weights = Matrix::new(weights, shape.outputs, shape.taps()).transposed();
    let image = |room: &mut Vec<f32>, out: &mut [f32], gradient: &[f32], shared| {
        for rows in shape.tiles() {
            let (start, count) = (rows.start * shape.out_width(), rows.len() * shape.out_width());
            let gradient =
                Matrix::strided(&gradient[start..], shape.outputs, count, shape.places());
            if shape.is_pointwise() {
                let into = Into { data: &mut out[start..], stride: shape.places() };
                multiply(into, weights, gradient, false, shared);
                continue;
            }
            room.resize(shape.taps() * count, 0.0);
            multiply(Into { data: room, stride: count }, weights, gradient, false, shared);
            columns::scatter(out, room, shape, &rows);
        }
    };
    each(shape, &mut out, shape.image(), gradient, shape.map(), image);
    out
}

/// Does something for each image of the batch, on one thread each, or for one after the other on all of them.
fn each(
    shape: &Shape,
    out: &mut [f32],
    out_size: usize,
    x: &[f32],
    x_size: usize,
    image: impl Fn(&mut Vec<f32>, &mut [f32], &[f32], bool) + Sync,
) {
    match shape.is_many() {
        true => out
            .par_chunks_exact_mut(out_size)
            .zip(x.par_chunks_exact(x_size))
            .for_each_init(Vec::new, |room, (out, x)| image(room, out, x, false)),
        false => {
            let mut room = Vec::new();
            let images = out.chunks_exact_mut(out_size).zip(x.chunks_exact(x_size));
            images.for_each(|(out, x)| image(&mut room, out, x, true));
        }
    }
}

/// The gradient of the weights: the sum over all images, always in the same order.
pub fn backward_weights(shape: &Shape, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let add = |sum: &mut [f32], x: &[f32], gradient: &[f32], shared| {
        let mut room = Vec::new();
        let images = x.chunks_exact(shape.image()).zip(gradient.chunks_exact(shape.map()));
        for (x, gradient) in images {
            for rows in shape.tiles() {
                let (start, count) =
                    (rows.start * shape.out_width(), rows.len() * shape.out_width());
                let gradient =
                    Matrix::strided(&gradient[start..], shape.outputs, count, shape.places());
                let patches = patches(&mut room, x, shape, &rows, shared).transposed();
                let into = Into { data: &mut *sum, stride: shape.taps() };
                multiply(into, gradient, patches, true, shared);
            }
        }
    };
    let mut sum = vec![0.0; shape.weights()];
    if shape.weights() > FEW_WEIGHTS {
        add(&mut sum, x, gradient, true);
        return sum;
    }
    let images = shape.batch.div_ceil(PARTS).max(1);
    let mut parts = vec![0.0; shape.batch.div_ceil(images) * sum.len()];
    parts
        .par_chunks_exact_mut(sum.len())
        .zip(x.par_chunks(images * shape.image()))
        .zip(gradient.par_chunks(images * shape.map()))
        .for_each(|((part, x), gradient)| add(part, x, gradient, false));
    for part in parts.chunks_exact(sum.len()) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}
