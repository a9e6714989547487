//! The patches that a kernel sees, as the columns of a matrix (im2col: Chellapilla et al., 2006), and back.

use std::ops::Range;

use super::convolution::Shape;

/// The weights of a kernel, and where each stands.
pub struct Columns<'a> {
    pub shape: &'a Shape,
    /// Of one channel.
    taps: Vec<Tap>,
}

impl<'a> Columns<'a> {
    pub fn new(shape: &'a Shape) -> Self {
        Self { shape, taps: (0..shape.size.pow(2)).map(|k| Tap::new(shape, k)).collect() }
    }

    /// The channel that tap `k` of the whole kernel sees, as a range of the image, and where it stands on it.
    fn tap(&self, k: usize) -> (Range<usize>, &Tap) {
        let (channel, tap) = (k / self.taps.len(), k % self.taps.len());
        let plane = self.shape.height * self.shape.width;
        (channel * plane..(channel + 1) * plane, &self.taps[tap])
    }

    /// Writes a row of the patches below these rows of the output, `[channels * size * size, rows * width]`: what tap `k`
    /// of the kernel sees. `image` is `[channels, height, width]`.
    pub fn fill(&self, line: &mut [f32], image: &[f32], rows: &Range<usize>, k: usize) {
        let (plane, tap) = self.tap(k);
        let plane = &image[plane];
        if tap.sees_whole_rows(self.shape) {
            return self.fill_at_once(line, plane, tap, rows);
        }
        for (line, y) in line.chunks_exact_mut(self.shape.out_width()).zip(rows.clone()) {
            let Some(source) = tap.place(self.shape, y).map(|place| &plane[place]) else {
                line.fill(0.0);
                continue;
            };
            let inside = tap.inside.clone();
            clear(&mut line[..inside.start]);
            clear(&mut line[inside.end..]);
            let line = &mut line[inside];
            match self.shape.stride {
                1 => copy(line, source),
                stride => {
                    line.iter_mut()
                        .zip(source.iter().step_by(stride))
                        .for_each(|(to, from)| *to = *from);
                }
            }
        }
    }

    /// The rows that a tap sees lie one behind the other, as those of the line do.
    fn fill_at_once(&self, line: &mut [f32], plane: &[f32], tap: &Tap, rows: &Range<usize>) {
        let Shape { height, width, padding, .. } = *self.shape;
        // Of the output, those for which it is on the image.
        let on_image = [padding, height + padding];
        let [first, end] = on_image.map(|y| y.saturating_sub(tap.y).clamp(rows.start, rows.end));
        let (before, rest) = line.split_at_mut((first - rows.start) * width);
        let (seen, after) = rest.split_at_mut((end - first) * width);
        before.fill(0.0);
        after.fill(0.0);
        if first < end {
            let top = first + tap.y - padding;
            seen.copy_from_slice(&plane[top * width..][..seen.len()]);
        }
    }

    /// Adds each element of the rows of such a matrix to where [`Columns::fill`] has taken it from.
    pub fn scatter<'l>(
        &self,
        image: &mut [f32],
        lines: impl Iterator<Item = &'l [f32]>,
        rows: &Range<usize>,
    ) {
        for (k, line) in lines.enumerate() {
            let (plane, tap) = self.tap(k);
            let plane = &mut image[plane];
            for (line, y) in line.chunks_exact(self.shape.out_width()).zip(rows.clone()) {
                let Some(place) = tap.place(self.shape, y) else { continue };
                let (target, line) = (&mut plane[place], &line[tap.inside.clone()]);
                match self.shape.stride {
                    1 => target.iter_mut().zip(line).for_each(|(to, from)| *to += from),
                    stride => {
                        let target = target.iter_mut().step_by(stride);
                        target.zip(line).for_each(|(to, from)| *to += from);
                    }
                }
            }
        }
    }
}

/// Copies as much as fits. Most rows are so short that a call of the system's would take longer than the copy.
fn copy(to: &mut [f32], from: &[f32]) {
    const LANES: usize = 8;
    let from = &from[..to.len()];
    let Some(last) = to.len().checked_sub(LANES) else {
        return to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    };
    // The last ones overlap with those before.
    for at in (0..last).step_by(LANES).chain([last]) {
        to[at..][..LANES].copy_from_slice(&from[at..][..LANES]);
    }
}

/// Sets to zero what is mostly one value or none, for which a call of the system's takes longer.
fn clear(edge: &mut [f32]) {
    match edge {
        [] => {}
        [one] => *one = 0.0,
        more => more.fill(0.0),
    }
}

/// One weight of a kernel.
struct Tap {
    y: usize,
    /// Of the columns of the output, those for which it is on the image, not on the padding.
    inside: Range<usize>,
    /// What it sees for the first of them.
    first: usize,
}

impl Tap {
    fn new(shape: &Shape, k: usize) -> Self {
        let Shape { size, stride, padding, width, .. } = *shape;
        let (y, x) = (k / size, k % size);
        let start = padding.saturating_sub(x).div_ceil(stride).min(shape.out_width());
        // The first that is beyond the image.
        let end = (width + padding).saturating_sub(x).div_ceil(stride).min(shape.out_width());
        let first = (start * stride + x).saturating_sub(padding);
        Self { y, inside: start..end.max(start), first }
    }

    fn sees_whole_rows(&self, shape: &Shape) -> bool {
        shape.stride == 1 && self.inside == (0..shape.width) && shape.out_width() == shape.width
    }

    /// Where it stands for a row of the output; none on the padding.
    fn place(&self, shape: &Shape, y: usize) -> Option<Range<usize>> {
        let y = (y * shape.stride + self.y).checked_sub(shape.padding)?;
        (y < shape.height && !self.inside.is_empty())
            .then(|| y * shape.width + self.first..(y + 1) * shape.width)
    }
}
