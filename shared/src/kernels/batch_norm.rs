//! Batch normalisation by the batch's own moments (Ioffe and Szegedy, 2015), with what follows it, and its gradients.
//!
//! Maps are `[batch, channels, places]`. A channel is one thread's, from its mean to its output, so that its maps come from
//! memory once where they fit into the cache; and nothing depends on the number of threads, to the last bit.

use pulp::Arch;
use rayon::prelude::*;

use super::finish::Rectify;

/// Sums that are added up beside each other: as many as the compiler can add at once.
const LANES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maps {
    pub batch: usize,
    pub channels: usize,
    pub places: usize,
}

impl Maps {
    /// Values of a channel.
    fn count(&self) -> f64 {
        (self.batch * self.places) as f64
    }

    /// The maps of a channel, image after image.
    fn of<'a>(&self, values: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> {
        values.chunks_exact(self.places).skip(channel).step_by(self.channels)
    }

    /// Those of all channels.
    fn by_channel<'a>(&self, values: &'a mut [f32]) -> Vec<Vec<&'a mut [f32]>> {
        let mut channels: Vec<_> =
            (0..self.channels).map(|_| Vec::with_capacity(self.batch)).collect();
        for (i, map) in values.chunks_exact_mut(self.places).enumerate() {
            channels[i % self.channels].push(map);
        }
        channels
    }
}

/// What is learned, by channel, and what is set.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    pub weight: &'a [f32],
    pub bias: &'a [f32],
    pub epsilon: f32,
    pub rectify: Rectify,
}

/// Of each channel; the variance is the batch's, not the population's.
#[derive(Debug, Clone)]
pub struct Moments {
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
}

/// `rectify(weight · (x - mean) / √(variance + ε) + bias + addend)`, and the moments.
pub fn forward(
    maps: &Maps,
    x: &[f32],
    layer: Layer<'_>,
    addend: Option<&[f32]>,
) -> (Vec<f32>, Moments) {
    let mut output = vec![0.0; x.len()];
    let arch = Arch::new();
    let moments = maps.by_channel(&mut output).into_par_iter().enumerate().map(|(c, output)| {
        arch.dispatch(
            #[inline(always)]
            || {
                let [mean, variance] = moments(maps, x, c);
                let scale = layer.weight[c] / (variance + layer.epsilon).sqrt();
                let (shift, rectify) = (layer.bias[c] - mean * scale, layer.rectify.value());
                let x = maps.of(x, c);
                match addend {
                    Some(addend) => {
                        for ((output, x), addend) in
                            output.into_iter().zip(x).zip(maps.of(addend, c))
                        {
                            write(output, [x, addend], move |[x, add]| {
                                rectify(x * scale + shift + add)
                            });
                        }
                    }
                    None => {
                        for (output, x) in output.into_iter().zip(x) {
                            write(output, [x], move |[x]| rectify(x * scale + shift));
                        }
                    }
                }
                (mean, variance)
            },
        )
    });
    let (mean, variance) = moments.unzip();
    (output, Moments { mean, variance })
}

/// In two passes, so that nothing is lost where the mean is far from zero.
#[inline(always)]
fn moments(maps: &Maps, x: &[f32], channel: usize) -> [f32; 2] {
    let sum: f64 = maps.of(x, channel).map(|x| totals([x], |[x]| [x])[0]).sum();
    let mean = (sum / maps.count()) as f32;
    let square = move |[x]: [f32; 1]| [(x - mean) * (x - mean)];
    let squares: f64 = maps.of(x, channel).map(|x| totals([x], square)[0]).sum();
    [mean, (squares / maps.count()) as f32]
}

/// What a backward pass begins with.
#[derive(Debug, Clone, Copy)]
pub struct Done<'a> {
    pub x: &'a [f32],
    pub output: &'a [f32],
    pub mean: &'a [f32],
    pub variance: &'a [f32],
    /// Of the output.
    pub gradient: &'a [f32],
}

pub struct Gradients {
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// The gradients of [`forward`] but for the addend's.
pub fn backward(maps: &Maps, done: Done<'_>, layer: Layer<'_>) -> Gradients {
    let mut x = vec![0.0; done.x.len()];
    let arch = Arch::new();
    let sums = maps.by_channel(&mut x).into_par_iter().enumerate().map(|(c, out)| {
        arch.dispatch(
            #[inline(always)]
            || channel_backward(maps, done, layer, c, out),
        )
    });
    let (weight, bias) = sums.unzip();
    Gradients { x, weight, bias }
}

/// Writes the gradient of a channel of `x`; gives those of its weight and bias.
#[inline(always)]
fn channel_backward(
    maps: &Maps,
    done: Done<'_>,
    layer: Layer<'_>,
    c: usize,
    out: Vec<&mut [f32]>,
) -> (f32, f32) {
    let (mean, slope) = (done.mean[c], layer.rectify.slope());
    let inverse = f64::from(done.variance[c] + layer.epsilon).sqrt().recip();
    // x, the gradient, and the output, which is only looked at where something was cut off.
    let maps_of = || {
        let output = if layer.rectify == Rectify::Not { done.gradient } else { done.output };
        let pair = maps.of(done.x, c).zip(maps.of(done.gradient, c));
        pair.zip(maps.of(output, c)).map(|((x, gradient), output)| [x, gradient, output])
    };
    let mut sums = [0.0; 2];
    for maps in maps_of() {
        let of_map = totals(maps, move |[x, gradient, output]| {
            let gradient = slope(gradient, output);
            [gradient * (x - mean), gradient]
        });
        sums = [sums[0] + of_map[0], sums[1] + of_map[1]];
    }
    let (weight, bias) = (sums[0] * inverse, sums[1]);
    let scale = f64::from(layer.weight[c]) * inverse;
    let (level, tilt) = (scale * bias / maps.count(), scale * inverse * weight / maps.count());
    let [scale, level, tilt] = [scale, level, tilt].map(|factor| factor as f32);
    for (out, maps) in out.into_iter().zip(maps_of()) {
        write(out, maps, move |[x, gradient, output]| {
            scale * slope(gradient, output) - level - tilt * (x - mean)
        });
    }
    (weight as f32, bias as f32)
}

/// The gradient behind the rectifier, which is the addend's.
pub fn rectified(gradient: &[f32], output: &[f32], rectify: Rectify) -> Vec<f32> {
    /// Values that a thread takes at a time.
    const CHUNK: usize = 16 << 10;
    let (mut out, slope) = (vec![0.0; gradient.len()], rectify.slope());
    let arch = Arch::new();
    let pairs = gradient.par_chunks(CHUNK).zip(output.par_chunks(CHUNK));
    out.par_chunks_mut(CHUNK).zip(pairs).for_each(|(out, (gradient, output))| {
        arch.dispatch(
            #[inline(always)]
            || write(out, [gradient, output], move |[gradient, output]| slope(gradient, output)),
        );
    });
    out
}

/// Sums of what `of` makes of the values at each place of these maps.
#[inline(always)]
fn totals<const N: usize, const M: usize>(
    maps: [&[f32]; N],
    of: impl Fn([f32; N]) -> [f32; M],
) -> [f64; M] {
    let parts = maps.map(|map| map.as_chunks::<LANES>());
    let mut sums = [[0.0f32; LANES]; M];
    for i in 0..parts[0].0.len() {
        let chunks = parts.map(|(chunks, _)| &chunks[i]);
        for lane in 0..LANES {
            let values = of(chunks.map(|chunk| chunk[lane]));
            for (sum, value) in sums.iter_mut().zip(values) {
                sum[lane] += value;
            }
        }
    }
    for i in 0..parts[0].1.len() {
        for (sum, value) in sums.iter_mut().zip(of(parts.map(|(_, rest)| rest[i]))) {
            sum[i] += value;
        }
    }
    sums.map(|lanes| lanes.iter().map(|&lane| f64::from(lane)).sum())
}

/// Writes what `of` makes of the values at each place of these maps. It should own what it needs: what it refers to is
/// loaded again for each place, and none of it is a vector.
#[inline(always)]
fn write<const N: usize>(out: &mut [f32], maps: [&[f32]; N], of: impl Fn([f32; N]) -> f32) {
    let maps = maps.map(|map| &map[..out.len()]);
    for (i, out) in out.iter_mut().enumerate() {
        *out = of(maps.map(|map| map[i]));
    }
}
