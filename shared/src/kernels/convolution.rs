//! Convolution as products of matrices: the kernel's weights, as they lie, times the patches of a part of the image.
//!
//! Images are `[batch, channels, height, width]`, weights `[outputs, channels, size, size]`. What is computed for one image
//! does not depend on the others of its batch, nor any of it on the number of threads, to the last bit.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    columns::Columns,
    finish::Finish,
    multiply::{Into, Matrix, multiply},
};

/// Patches that are gathered at once, in floats: what a core's second-level cache holds, with room for the weights. As many
/// as there are weights, if these are more: each product reads all of them.
const GATHERED: usize = 128 << 10;
/// Columns that a product should have, for the same reason: images whose maps are smaller are computed together.
const COLUMNS: usize = 192;
/// Products of no more rows than these are computed in another order by the gemm crate, if they have few columns too.
const FEW_ROWS: usize = 64;
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
    pub fn places(&self) -> usize {
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
        let gathered = GATHERED.max(self.weights());
        let rows = (gathered / (self.taps() * self.out_width())).clamp(1, height);
        (0..height).step_by(rows).map(move |y| y..(y + rows).min(height))
    }

    /// Images that are computed together by one of the threads. The last bits are those of each alone.
    fn together(&self) -> usize {
        if self.outputs.min(self.taps()) <= FEW_ROWS || self.places() == 1 {
            return 1;
        }
        let each = self.batch.div_ceil(rayon::current_num_threads()).max(1);
        (COLUMNS / self.places()).clamp(1, each)
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
    columns: &Columns<'_>,
    rows: &Range<usize>,
    shared: bool,
) -> Matrix<'a> {
    let shape = columns.shape;
    let (taps, width) = (shape.taps(), shape.out_width());
    let count = rows.len() * width;
    if shape.is_pointwise() {
        return Matrix::strided(&image[rows.start * width..], taps, count, shape.places());
    }
    let fill = |line: &mut [f32], _, k| columns.fill(line, image, rows, k);
    side_by_side(room, [taps, 1, count], shared, fill);
    Matrix::new(room, taps, count)
}

/// Lines of several images beside each other, `[lines, images * places]`; `fill` gets a place, an image and a line.
fn side_by_side(
    room: &mut Vec<f32>,
    [lines, images, places]: [usize; 3],
    shared: bool,
    fill: impl Fn(&mut [f32], usize, usize) + Sync,
) {
    room.resize(lines * images * places, 0.0);
    let fill = |(k, line): (usize, &mut [f32])| {
        line.chunks_exact_mut(places).enumerate().for_each(|(i, line)| fill(line, i, k));
    };
    match shared {
        true => room.par_chunks_exact_mut(images * places).enumerate().for_each(fill),
        false => room.chunks_exact_mut(images * places).enumerate().for_each(fill),
    }
}

/// What is put beside the products.
#[derive(Debug, Clone, Copy)]
pub enum Beside<'a> {
    Nothing,
    /// By output.
    Bias(&'a [f32]),
    Finish(Finish<'a>),
}

impl<'a> Beside<'a> {
    pub fn bias(self) -> Option<&'a [f32]> {
        if let Self::Bias(bias) = self { Some(bias) } else { None }
    }

    /// That of one image.
    pub fn finish(self, shape: &Shape, image: usize) -> Option<Finish<'a>> {
        match self {
            Self::Finish(finish) => Some(finish.of_image(image, shape.map())),
            _ => None,
        }
    }
}

/// Memory of a thread, for one image or group of them after the other.
#[derive(Default)]
struct Room {
    /// What is gathered from the images, and what else is as large.
    gathered: Vec<f32>,
    product: Vec<f32>,
}

/// `[batch, outputs, height', width']`
pub fn forward(shape: &Shape, x: &[f32], weights: &[f32], beside: Beside<'_>) -> Vec<f32> {
    let mut out = vec![0.0; shape.batch * shape.map()];
    let columns = &Columns::new(shape);
    let weights = Matrix::new(weights, shape.outputs, shape.taps());
    let compute = |room: &mut Room, first, out: &mut [f32], x: &[f32], shared| match out.len()
        / shape.map()
    {
        1 => forward_one(columns, room, out, x, weights, (beside, first), shared),
        _ => forward_together(columns, room, out, x, weights, (beside, first)),
    };
    each(shape, &mut out, shape.map(), x, shape.image(), compute);
    out
}

fn forward_one(
    columns: &Columns<'_>,
    room: &mut Room,
    out: &mut [f32],
    x: &[f32],
    weights: Matrix<'_>,
    (beside, image): (Beside<'_>, usize),
    shared: bool,
) {
    let shape = columns.shape;
    let (bias, finish) = (beside.bias(), beside.finish(shape, image));
    if let Some(bias) = bias {
        let maps = out.chunks_exact_mut(shape.places());
        maps.zip(bias).for_each(|(map, bias)| map.fill(*bias));
    }
    for rows in shape.tiles() {
        let places = rows.start * shape.out_width()..rows.end * shape.out_width();
        let patches = patches(&mut room.gathered, x, columns, &rows, shared);
        let into = Into { data: &mut out[places.start..], stride: shape.places() };
        multiply(into, weights, patches, bias.is_some(), shared);
        if let Some(finish) = finish {
            finish.run(out, shape.places(), &places, shared);
        }
    }
}

fn forward_together(
    columns: &Columns<'_>,
    room: &mut Room,
    out: &mut [f32],
    x: &[f32],
    weights: Matrix<'_>,
    (beside, first): (Beside<'_>, usize),
) {
    let shape = columns.shape;
    let (images, places, rows) = (out.len() / shape.map(), shape.places(), 0..shape.out_height());
    let count = images * places;
    side_by_side(&mut room.gathered, [shape.taps(), images, places], false, |line, i, k| {
        columns.fill(line, &x[i * shape.image()..][..shape.image()], &rows, k);
    });
    room.product.resize(shape.outputs * count, 0.0);
    if let Some(bias) = beside.bias() {
        let lines = room.product.chunks_exact_mut(count);
        lines.zip(bias).for_each(|(line, bias)| line.fill(*bias));
    }
    let into = Into { data: &mut room.product, stride: count };
    let patches = Matrix::new(&room.gathered, shape.taps(), count);
    multiply(into, weights, patches, beside.bias().is_some(), false);
    for (i, out) in out.chunks_exact_mut(shape.map()).enumerate() {
        let lines = room.product.chunks_exact(count);
        for (map, line) in out.chunks_exact_mut(places).zip(lines) {
            map.copy_from_slice(&line[i * places..][..places]);
        }
        if let Some(finish) = beside.finish(shape, first + i) {
            finish.run(out, places, &(0..places), false);
        }
    }
}

/// The gradient of the images.
pub fn backward_images(shape: &Shape, gradient: &[f32], weights: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; shape.batch * shape.image()];
    let columns = &Columns::new(shape);
    let weights = Matrix::new(weights, shape.outputs, shape.taps()).transposed();
    let compute = |room: &mut Room, _, out: &mut [f32], gradient: &[f32], shared| match out.len()
        / shape.image()
    {
        1 => image_one(columns, &mut room.product, out, gradient, weights, shared),
        _ => images_together(columns, room, out, gradient, weights),
    };
    each(shape, &mut out, shape.image(), gradient, shape.map(), compute);
    out
}

fn image_one(
    columns: &Columns<'_>,
    product: &mut Vec<f32>,
    out: &mut [f32],
    gradient: &[f32],
    weights: Matrix<'_>,
    shared: bool,
) {
    let shape = columns.shape;
    for rows in shape.tiles() {
        let (start, count) = (rows.start * shape.out_width(), rows.len() * shape.out_width());
        let gradient = Matrix::strided(&gradient[start..], shape.outputs, count, shape.places());
        if shape.is_pointwise() {
            let into = Into { data: &mut out[start..], stride: shape.places() };
            multiply(into, weights, gradient, false, shared);
            continue;
        }
        product.resize(shape.taps() * count, 0.0);
        multiply(Into { data: product, stride: count }, weights, gradient, false, shared);
        columns.scatter(out, product.chunks_exact(count), &rows);
    }
}

fn images_together(
    columns: &Columns<'_>,
    room: &mut Room,
    out: &mut [f32],
    gradient: &[f32],
    weights: Matrix<'_>,
) {
    let shape = columns.shape;
    let (images, places) = (out.len() / shape.image(), shape.places());
    let count = images * places;
    side_by_side(&mut room.gathered, [shape.outputs, images, places], false, |line, i, o| {
        line.copy_from_slice(&gradient[i * shape.map() + o * places..][..places]);
    });
    room.product.resize(shape.taps() * count, 0.0);
    let into = Into { data: &mut room.product, stride: count };
    multiply(into, weights, Matrix::new(&room.gathered, shape.outputs, count), false, false);
    for (i, out) in out.chunks_exact_mut(shape.image()).enumerate() {
        let lines = room.product.chunks_exact(count).map(|line| &line[i * places..][..places]);
        columns.scatter(out, lines, &(0..shape.out_height()));
    }
}

/// Does something for each image of the batch, or a few together, on one thread each, or for one after the other on all of
/// them. It gets the number of the first.
fn each(
    shape: &Shape,
    out: &mut [f32],
    out_size: usize,
    x: &[f32],
    x_size: usize,
    compute: impl Fn(&mut Room, usize, &mut [f32], &[f32], bool) + Sync,
) {
    if !shape.is_many() {
        let mut room = Room::default();
        let images = out.chunks_exact_mut(out_size).zip(x.chunks_exact(x_size)).enumerate();
        return images.for_each(|(i, (out, x))| compute(&mut room, i, out, x, true));
    }
    let few = shape.together();
    out.par_chunks_mut(few * out_size)
        .zip(x.par_chunks(few * x_size))
        .enumerate()
        .for_each_init(Room::default, |room, (i, (out, x))| compute(room, i * few, out, x, false));
}

/// The gradient of the weights: the sum over all images, always in the same order.
pub fn backward_weights(shape: &Shape, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let mut sum = vec![0.0; shape.weights()];
    let columns = &Columns::new(shape);
    if shape.weights() > FEW_WEIGHTS {
        add_products(columns, &mut sum, x, gradient);
        return sum;
    }
    let images = shape.batch.div_ceil(PARTS).max(1);
    let mut parts = vec![0.0; shape.batch.div_ceil(images) * sum.len()];
    parts
        .par_chunks_exact_mut(sum.len())
        .zip(x.par_chunks(images * shape.image()))
        .zip(gradient.par_chunks(images * shape.map()))
        .for_each(|((part, x), gradient)| {
            let images = x.chunks_exact(shape.image()).zip(gradient.chunks_exact(shape.map()));
            let mut room = Vec::new();
            images.for_each(|(x, gradient)| add_one(columns, &mut room, part, x, gradient, false));
        });
    for part in parts.chunks_exact(sum.len()) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// Adds what the images bring, on all threads: a few at a time, as the whole gradient is read and written each time.
fn add_products(columns: &Columns<'_>, sum: &mut [f32], x: &[f32], gradient: &[f32]) {
    let shape = columns.shape;
    let few = (COLUMNS / shape.places()).max(1);
    let mut room = Room::default();
    let groups = x.chunks(few * shape.image()).zip(gradient.chunks(few * shape.map()));
    for (x, gradient) in groups {
        match gradient.len() / shape.map() {
            1 => add_one(columns, &mut room.gathered, sum, x, gradient, true),
            _ => add_together(columns, &mut room, sum, x, gradient),
        }
    }
}

fn add_one(
    columns: &Columns<'_>,
    room: &mut Vec<f32>,
    sum: &mut [f32],
    x: &[f32],
    gradient: &[f32],
    shared: bool,
) {
    let shape = columns.shape;
    for rows in shape.tiles() {
        let (start, count) = (rows.start * shape.out_width(), rows.len() * shape.out_width());
        let gradient = Matrix::strided(&gradient[start..], shape.outputs, count, shape.places());
        let patches = patches(room, x, columns, &rows, shared).transposed();
        let into = Into { data: &mut *sum, stride: shape.taps() };
        multiply(into, gradient, patches, true, shared);
    }
}

fn add_together(
    columns: &Columns<'_>,
    room: &mut Room,
    sum: &mut [f32],
    x: &[f32],
    gradient: &[f32],
) {
    let shape = columns.shape;
    let (images, places) = (gradient.len() / shape.map(), shape.places());
    let (count, rows) = (images * places, 0..shape.out_height());
    side_by_side(&mut room.gathered, [shape.taps(), images, places], true, |line, i, k| {
        columns.fill(line, &x[i * shape.image()..][..shape.image()], &rows, k);
    });
    side_by_side(&mut room.product, [shape.outputs, images, places], true, |line, i, o| {
        line.copy_from_slice(&gradient[i * shape.map() + o * places..][..places]);
    });
    let gradient = Matrix::new(&room.product, shape.outputs, count);
    let patches = Matrix::new(&room.gathered, shape.taps(), count).transposed();
    multiply(Into { data: sum, stride: shape.taps() }, gradient, patches, true, true);
}
