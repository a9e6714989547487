//! The patches that a kernel sees, as the columns of a matrix (im2col: Chellapilla et al., 2006), and back.

use std::ops::Range;

use super::convolution::Shape;

/// Writes the patches below these rows of the output: `[channels * size * size, rows * width]`. `image` is
/// `[channels, height, width]`.
pub fn gather(columns: &mut [f32], image: &[f32], shape: &Shape, rows: &Range<usize>) {
    let count = rows.len() * shape.out_width();
    for (k, line) in columns.chunks_exact_mut(count).enumerate() {
        fill(line, image, shape, rows, k);
    }
}

/// One row of that matrix: what tap `k` of the kernel sees.
pub fn fill(line: &mut [f32], image: &[f32], shape: &Shape, rows: &Range<usize>, k: usize) {
    let tap = Tap::new(shape, k);
    let plane = &image[tap.channel * shape.height * shape.width..][..shape.height * shape.width];
    for (line, y) in line.chunks_exact_mut(shape.out_width()).zip(rows.clone()) {
        let Some(source) = tap.row(plane, shape, y) else {
            line.fill(0.0);
            continue;
        };
        let inside = tap.inside.clone();
        line[..inside.start].fill(0.0);
        line[inside.end..].fill(0.0);
        let line = &mut line[inside];
        match shape.stride {
            1 => line.copy_from_slice(&source[..line.len()]),
            stride => {
                line.iter_mut()
                    .zip(source.iter().step_by(stride))
                    .for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// Adds each element of the rows of such a matrix to where [`gather`] has taken it from.
pub fn scatter<'a>(
    image: &mut [f32],
    lines: impl Iterator<Item = &'a [f32]>,
    shape: &Shape,
    rows: &Range<usize>,
) {
    for (k, line) in lines.enumerate() {
        let tap = Tap::new(shape, k);
        let size = shape.height * shape.width;
        let plane = &mut image[tap.channel * size..][..size];
        for (line, y) in line.chunks_exact(shape.out_width()).zip(rows.clone()) {
            let Some(target) = tap.row_mut(plane, shape, y) else { continue };
            let line = &line[tap.inside.clone()];
            match shape.stride {
                1 => target.iter_mut().zip(line).for_each(|(to, from)| *to += from),
                stride => {
                    let target = target.iter_mut().step_by(stride);
                    target.zip(line).for_each(|(to, from)| *to += from);
                }
            }
        }
    }
}

/// One weight of a kernel.
struct Tap {
    channel: usize,
    y: usize,
    /// Of the columns of the output, those for which it is on the image, not on the padding.
    inside: Range<usize>,
    /// What it sees for the first of them.
    first: usize,
}

impl Tap {
    fn new(shape: &Shape, k: usize) -> Self {
        let Shape { size, stride, padding, width, .. } = *shape;
        let (channel, y, x) = (k / (size * size), k / size % size, k % size);
        let start = padding.saturating_sub(x).div_ceil(stride).min(shape.out_width());
        // The first that is beyond the image.
        let end = (width + padding).saturating_sub(x).div_ceil(stride).min(shape.out_width());
        let first = (start * stride + x).saturating_sub(padding);
        Self { channel, y, inside: start..end.max(start), first }
    }

    /// Where it stands for a row of the output; none on the padding.
    fn place(&self, shape: &Shape, y: usize) -> Option<Range<usize>> {
        let y = (y * shape.stride + self.y).checked_sub(shape.padding)?;
        (y < shape.height && !self.inside.is_empty())
            .then(|| y * shape.width + self.first..(y + 1) * shape.width)
    }

    fn row<'a>(&self, plane: &'a [f32], shape: &Shape, y: usize) -> Option<&'a [f32]> {
        self.place(shape, y).map(|place| &plane[place])
    }

    fn row_mut<'a>(&self, plane: &'a mut [f32], shape: &Shape, y: usize) -> Option<&'a mut [f32]> {
        self.place(shape, y).map(|place| &mut plane[place])
    }
}
