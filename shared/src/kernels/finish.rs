//! What follows a convolution in the networks: a scale and a shift for each channel, an addend, a rectifier. In one go, while
//! a map is in the cache.

use std::ops::Range;

use burn::{
    backend::{Backend, Dispatch, ExtensionType, tensor::FloatTensor},
    tensor::Tensor,
};
use pulp::Arch;
use rayon::prelude::*;

/// What is done last to each value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rectify {
    Not,
    Relu,
    /// Cut off at 6 (Krizhevsky, 2010).
    Relu6,
}

impl Rectify {
    /// What it cuts off at, below and above. No comparison with NaN is true.
    fn bounds(self) -> [f32; 2] {
        match self {
            Self::Not => [f32::NAN; 2],
            Self::Relu => [0.0, f32::NAN],
            Self::Relu6 => [0.0, 6.0],
        }
    }

    /// The function itself; NaN stays what it is.
    #[inline(always)]
    pub fn value(self) -> impl Fn(f32) -> f32 + Copy + Sync {
        let [low, high] = self.bounds();
        move |x| {
            if x <= low {
                low
            } else if x >= high {
                high
            } else {
                x
            }
        }
    }

    /// Its gradient, from that of its output and the output.
    #[inline(always)]
    pub fn slope(self) -> impl Fn(f32, f32) -> f32 + Copy + Sync {
        let [low, high] = self.bounds();
        move |gradient, output| if output <= low || output >= high { 0.0 } else { gradient }
    }
}

/// What follows a layer, as tensors.
#[derive(Debug, Clone)]
pub struct Then {
    /// `[batch, channels, height, width]`, as what it is added to.
    pub addend: Option<Tensor<4>>,
    pub rectify: Rectify,
}

/// The addend of [`Then`], as the operations of a backend take it.
#[derive(Debug, ExtensionType)]
pub enum Addend<B: Backend> {
    Nothing,
    Maps(FloatTensor<B>),
}

impl<B: Backend> Addend<B> {
    pub fn maps(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Nothing => None,
            Self::Maps(maps) => Some(maps),
        }
    }
}

impl<B: Backend> From<Option<FloatTensor<B>>> for Addend<B> {
    fn from(maps: Option<FloatTensor<B>>) -> Self {
        maps.map_or(Self::Nothing, Self::Maps)
    }
}

impl Then {
    pub fn into_dispatch(self) -> (Addend<Dispatch>, Rectify) {
        (self.addend.map(Tensor::into_dispatch).into(), self.rectify)
    }
}

impl From<Rectify> for Then {
    fn from(rectify: Rectify) -> Self {
        Self { addend: None, rectify }
    }
}

/// `rectify(map · scale + shift + addend)`
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// By channel, as the shift.
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    /// `[channels, places]`, of the same image.
    pub addend: Option<&'a [f32]>,
    pub rectify: Rectify,
}

impl Finish<'_> {
    /// The same for one image of a batch, whose maps have so many values.
    pub fn of_image(self, image: usize, values: usize) -> Self {
        Self { addend: self.addend.map(|addend| &addend[image * values..][..values]), ..self }
    }

    /// Finishes these places of all maps of an image, `[channels, places]`.
    pub fn run(&self, maps: &mut [f32], size: usize, places: &Range<usize>, shared: bool) {
        match shared {
            true => maps
                .par_chunks_exact_mut(size)
                .enumerate()
                .for_each(|(channel, map)| self.map(channel, map, places)),
            false => maps
                .chunks_exact_mut(size)
                .enumerate()
                .for_each(|(channel, map)| self.map(channel, map, places)),
        }
    }

    /// The same for one of them.
    pub fn map(&self, channel: usize, map: &mut [f32], places: &Range<usize>) {
        let (scale, shift) = (self.scale[channel], self.shift[channel]);
        let addend = self.addend.map(|addend| &addend[channel * map.len()..][places.clone()]);
        let (map, rectify) = (&mut map[places.clone()], self.rectify.value());
        // Moved into the loops: what they refer to is loaded again for each value, and none is a vector.
        Arch::new().dispatch(
            #[inline(always)]
            move || match addend {
                Some(addend) => map
                    .iter_mut()
                    .zip(addend)
                    .for_each(move |(v, addend)| *v = rectify(*v * scale + shift + addend)),
                None => map.iter_mut().for_each(move |v| *v = rectify(*v * scale + shift)),
            },
        );
    }
}
