//! Convolution of each channel by itself (depthwise: Sifre and Mallat, 2014).
//!
//! Images are `[batch, channels, height, width]`, weights `[channels, 1, size, size]`. A map is laid out so that what a tap
//! sees of it lies in one piece, padding included: the whole map is then one long sum of such pieces, however short its
//! rows are. Nothing depends on the batch or on the number of threads, to the last bit.

use pulp::Arch;
use rayon::prelude::*;

use super::convolution::{Beside, Shape};

/// Sums that are made at once, in floats: they stay in the first-level cache.
const BLOCK: usize = 1024;
/// Multiplications that are worth a task of their own.
const TASK: usize = 1 << 17;

/// A map with its padding, cut into `stride²` planes `[rows, width]`: plane `(i, j)` has every `stride`th row from `i` and
/// every `stride`th column from `j`. Sums and gradients have the same `width`, with gaps at the end of each row.
#[derive(Clone, Copy)]
struct Lay<'a> {
    shape: &'a Shape,
    rows: usize,
    width: usize,
}

/// Elements that lie in both, every `stride`th of the map.
struct Line {
    laid: usize,
    map: usize,
    count: usize,
}

impl<'a> Lay<'a> {
    fn new(shape: &'a Shape) -> Self {
        let beyond = (shape.size - 1) / shape.stride;
        Self { shape, rows: shape.out_height() + beyond, width: shape.out_width() + beyond }
    }

    /// Of all planes.
    fn floats(&self) -> usize {
        self.shape.stride.pow(2) * self.rows * self.width
    }

    /// From the first sum to the last.
    fn sums(&self) -> usize {
        (self.shape.out_height() - 1) * self.width + self.shape.out_width()
    }

    /// Where that begins what tap `k` of the kernel sees.
    fn tap(&self, k: usize) -> usize {
        let Shape { size, stride, .. } = *self.shape;
        let (y, x) = (k / size, k % size);
        self.place([y % stride, x % stride], y / stride) + x / stride
    }

    fn place(&self, [i, j]: [usize; 2], row: usize) -> usize {
        ((i * self.shape.stride + j) * self.rows + row) * self.width
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let Shape { height, width, stride, padding, .. } = *self.shape;
        let planes = (0..stride).flat_map(move |i| (0..stride).map(move |j| [i, j]));
        planes.flat_map(move |plane| (0..self.rows).map(move |row| (plane, row))).filter_map(
            move |([i, j], row)| {
                let y = (i + stride * row).checked_sub(padding).filter(|y| *y < height)?;
                let first = padding.saturating_sub(j).div_ceil(stride).min(self.width);
                let end = (width + padding).saturating_sub(j).div_ceil(stride).min(self.width);
                let count = end.checked_sub(first).filter(|count| *count > 0)?;
                let map = y * width + first * stride + j - padding;
                Some(Line { laid: self.place([i, j], row) + first, map, count })
            },
        )
    }

    /// Lays out a map; what is padding in `laid` is so already.
    fn lay(&self, laid: &mut [f32], map: &[f32]) {
        for Line { laid: to, map: from, count } in self.lines() {
            let to = &mut laid[to..][..count];
            match self.shape.stride {
                1 => to.copy_from_slice(&map[from..][..count]),
                stride => to.iter_mut().zip(map[from..].iter().step_by(stride)).for_each(copy),
            }
        }
    }

    /// Back again; what is in no plane stays as it is.
    fn unlay(&self, map: &mut [f32], laid: &[f32]) {
        for Line { laid: from, map: to, count } in self.lines() {
            let from = &laid[from..][..count];
            match self.shape.stride {
                1 => map[to..][..count].copy_from_slice(from),
                stride => map[to..].iter_mut().step_by(stride).zip(from).for_each(copy),
            }
        }
    }

    /// The rows of the output, and where they are among the sums.
    fn rows_of<'m>(&self, map: &'m [f32]) -> impl Iterator<Item = (usize, &'m [f32])> {
        let width = self.width;
        map.chunks_exact(self.shape.out_width()).enumerate().map(move |(y, row)| (y * width, row))
    }

    fn taps(&self) -> usize {
        self.shape.size.pow(2)
    }

    /// Maps that are one task.
    fn few(&self) -> usize {
        (TASK / (self.taps() * self.sums())).max(1)
    }
}

fn copy((to, from): (&mut f32, &f32)) {
    *to = *from;
}

/// Memory of a thread, for one map after the other.
#[derive(Default)]
struct Room {
    laid: Vec<f32>,
    sums: Vec<f32>,
}

impl Room {
    /// All zero.
    fn new(lay: &Lay<'_>) -> Self {
        Self { laid: vec![0.0; lay.floats()], sums: vec![0.0; lay.sums()] }
    }
}

/// `[batch, channels, height', width']`
pub fn forward(shape: &Shape, x: &[f32], weights: &[f32], beside: Beside<'_>) -> Vec<f32> {
    let lay = Lay::new(shape);
    let (places, plane) = (shape.places(), shape.height * shape.width);
    let mut out = vec![0.0; shape.batch * shape.channels * places];
    out.par_chunks_exact_mut(places)
        .zip(x.par_chunks_exact(plane))
        .enumerate()
        .with_min_len(lay.few())
        .for_each_init(
            || Room::new(&lay),
            |room, (i, (out, x))| {
                let (image, channel) = (i / shape.channels, i % shape.channels);
                lay.lay(&mut room.laid, x);
                room.sums.fill(beside.bias().map_or(0.0, |bias| bias[channel]));
                let weights = &weights[channel * lay.taps()..][..lay.taps()];
                add_taps(&mut room.sums, &room.laid, weights, |k| lay.tap(k));
                let rows = out.chunks_exact_mut(shape.out_width());
                for (row, sums) in rows.zip(room.sums.chunks(lay.width)) {
                    row.copy_from_slice(&sums[..row.len()]);
                }
                if let Some(finish) = beside.finish(shape, image) {
                    finish.map(channel, out, &(0..places));
                }
            },
        );
    out
}

/// Adds to each sum what all taps see of it.
fn add_taps(sums: &mut [f32], laid: &[f32], weights: &[f32], tap: impl Fn(usize) -> usize) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (block, sums) in sums.chunks_mut(BLOCK).enumerate() {
                let count = sums.len();
                let seen = |k: usize| &laid[tap(k) + block * BLOCK..][..count];
                let threes = weights.chunks_exact(3);
                let rest = weights.len() - threes.remainder().len();
                for (i, three) in threes.enumerate() {
                    let seen = [3 * i, 3 * i + 1, 3 * i + 2].map(seen);
                    add_three(sums, seen, [three[0], three[1], three[2]]);
                }
                for (k, weight) in weights.iter().enumerate().skip(rest) {
                    sums.iter_mut().zip(seen(k)).for_each(|(sum, x)| *sum += weight * x);
                }
            }
        },
    );
}

#[inline(always)]
fn add_three(sums: &mut [f32], [a, b, c]: [&[f32]; 3], weights: [f32; 3]) {
    let seen = a.iter().zip(b).zip(c);
    for (sum, ((a, b), c)) in sums.iter_mut().zip(seen) {
        *sum += weights[0] * a + weights[1] * b + weights[2] * c;
    }
}

/// The gradient of the images.
pub fn backward_images(shape: &Shape, gradient: &[f32], weights: &[f32]) -> Vec<f32> {
    let lay = Lay::new(shape);
    let (places, plane) = (shape.places(), shape.height * shape.width);
    let mut out = vec![0.0; shape.batch * shape.channels * plane];
    out.par_chunks_exact_mut(plane)
        .zip(gradient.par_chunks_exact(places))
        .enumerate()
        .with_min_len(lay.few())
        .for_each_init(
            || Room::new(&lay),
            |room, (i, (out, gradient))| {
                for (at, row) in lay.rows_of(gradient) {
                    room.sums[at..][..row.len()].copy_from_slice(row);
                }
                room.laid.fill(0.0);
                let weights = &weights[i % shape.channels * lay.taps()..][..lay.taps()];
                spread(&mut room.laid, &room.sums, weights, |k| lay.tap(k));
                lay.unlay(out, &room.laid);
            },
        );
    out
}

/// Adds the sums to all that the taps have seen.
fn spread(laid: &mut [f32], sums: &[f32], weights: &[f32], tap: impl Fn(usize) -> usize) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (k, weight) in weights.iter().enumerate() {
                let seen = laid[tap(k)..].iter_mut();
                seen.zip(sums).for_each(|(seen, sum)| *seen += weight * sum);
            }
        },
    );
}

/// The gradient of the weights: the sum over all images, in their order.
pub fn backward_weights(shape: &Shape, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let lay = Lay::new(shape);
    let (places, plane) = (shape.places(), shape.height * shape.width);
    let mut out = vec![0.0; shape.channels * lay.taps()];
    out.par_chunks_exact_mut(lay.taps())
        .enumerate()
        .with_min_len(lay.few().div_ceil(shape.batch.max(1)))
        .for_each_init(
            || Room::new(&lay),
            |room, (channel, weights)| {
                for image in 0..shape.batch {
                    let map = image * shape.channels + channel;
                    lay.lay(&mut room.laid, &x[map * plane..][..plane]);
                    for (at, row) in lay.rows_of(&gradient[map * places..][..places]) {
                        room.sums[at..][..row.len()].copy_from_slice(row);
                    }
                    for (k, weight) in weights.iter_mut().enumerate() {
                        *weight += dot(&room.laid[lay.tap(k)..][..room.sums.len()], &room.sums);
                    }
                }
            },
        );
    out
}

/// In an order that vectors keep.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut lanes = [0.0; LANES];
            let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest = left.remainder().iter().zip(right.remainder());
            for (a, b) in left.clone().zip(right.clone()) {
                for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
                    *lane += a * b;
                }
            }
            rest.fold(lanes.iter().sum::<f32>(), |sum, (a, b)| sum + a * b)
        },
    )
}
