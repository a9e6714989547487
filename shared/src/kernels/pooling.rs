//! The largest value under a window that moves over a map.
//!
//! Images are `[batch, channels, height, width]`. First the largest of each column of a row of windows is found, which
//! vectors do, then the largest of neighbouring columns. NaN is larger than any number, and of equal values the first counts, row
//! by row, as in PyTorch.

use pulp::Arch;
use rayon::prelude::*;

use super::convolution::Shape;

/// Values that are worth a task of their own.
const TASK: usize = 1 << 15;

/// `[batch, channels, height', width']`; of the shape, the outputs are the channels.
pub fn forward(shape: &Shape, x: &[f32]) -> Vec<f32> {
    let (places, plane) = (shape.places(), shape.height * shape.width);
    let mut out = vec![0.0; shape.batch * shape.channels * places];
    out.par_chunks_exact_mut(places)
        .zip(x.par_chunks_exact(plane))
        .with_min_len((TASK / plane).max(1))
        .for_each_init(
            || vec![f32::NEG_INFINITY; shape.width + 2 * shape.padding],
            |columns, (out, map)| {
                for (y, row) in out.chunks_exact_mut(shape.out_width()).enumerate() {
                    largest_of_columns(shape, columns, map, y);
                    largest_of_row(row, columns, shape.size, shape.stride);
                }
            },
        );
    out
}

/// Whether a value takes the place of the largest so far.
#[inline(always)]
fn is_larger(value: f32, than: f32) -> bool {
    value > than || value.is_nan()
}

/// Of the windows of row `y` of the output; beside them is the padding.
fn largest_of_columns(shape: &Shape, columns: &mut [f32], map: &[f32], y: usize) {
    let inside = &mut columns[shape.padding..][..shape.width];
    inside.fill(f32::NEG_INFINITY);
    let [first, end] = bounds(shape, y, shape.height);
    let rows = map[first * shape.width..end * shape.width].chunks_exact(shape.width);
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for row in rows {
                for (largest, value) in inside.iter_mut().zip(row) {
                    *largest = if is_larger(*value, *largest) { *value } else { *largest };
                }
            }
        },
    );
}

fn largest_of_row(out: &mut [f32], columns: &[f32], size: usize, stride: usize) {
    let largest = |window: &[f32]| {
        window.iter().fold(f32::NEG_INFINITY, |largest, value| {
            if is_larger(*value, largest) { *value } else { largest }
        })
    };
    // The usual ones are unrolled.
    match (size, stride) {
        (2, 2) => {
            let windows = columns.chunks_exact(2);
            out.iter_mut().zip(windows).for_each(|(out, window)| *out = largest(window));
        }
        (3, _) => {
            let windows = columns.windows(3).step_by(stride);
            out.iter_mut().zip(windows).for_each(|(out, window)| *out = largest(window));
        }
        _ => {
            let windows = columns.windows(size).step_by(stride);
            out.iter_mut().zip(windows).for_each(|(out, window)| *out = largest(window));
        }
    }
}

/// Where a window is on the map, of `extent` rows or columns.
fn bounds(shape: &Shape, at: usize, extent: usize) -> [usize; 2] {
    let begin = at * shape.stride;
    [begin, begin + shape.size].map(|at| at.saturating_sub(shape.padding).min(extent))
}

/// The gradient of the images: that of an output belongs to the largest value of its window.
pub fn backward(shape: &Shape, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (places, plane) = (shape.places(), shape.height * shape.width);
    let mut out = vec![0.0; x.len()];
    out.par_chunks_exact_mut(plane)
        .zip(x.par_chunks_exact(plane))
        .zip(gradient.par_chunks_exact(places))
        .with_min_len((TASK / plane).max(1))
        .for_each(|((out, map), gradient)| {
            for (y, row) in gradient.chunks_exact(shape.out_width()).enumerate() {
                let rows = bounds(shape, y, shape.height);
                for (x, gradient) in row.iter().enumerate() {
                    out[place_of_largest(shape, map, rows, x)] += gradient;
                }
            }
        });
    out
}

/// Of the window of column `x` of the output, in these rows.
fn place_of_largest(shape: &Shape, map: &[f32], rows: [usize; 2], x: usize) -> usize {
    let [left, right] = bounds(shape, x, shape.width);
    let (mut place, mut largest) = (rows[0] * shape.width + left, f32::NEG_INFINITY);
    for y in rows[0]..rows[1] {
        let begin = y * shape.width + left;
        for (at, value) in map[begin..begin + right - left].iter().enumerate() {
            if is_larger(*value, largest) {
                (place, largest) = (begin + at, *value);
            }
        }
    }
    place
}
