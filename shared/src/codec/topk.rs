//! The elements of largest magnitude of each sample, exact; the others decode to zero.
//!
//! First the values that are kept, FP32, sample after sample in the order of memory; then where they stand,
//! packed in whichever of four ways is least: a bit for each element, the gap to the one before as a varint,
//! or 16 or 32 bits for each. A tenth of the elements takes an eighth of FP32's bytes. Elements of equal
//! magnitude are kept from the front. NaN counts as larger than infinity, so what is broken is kept before
//! all else. What is left out is off by at most the least magnitude that is kept.
//!
//! In training what was left out is added to what is sent next (Stich et al., Sparsified SGD with Memory,
//! NeurIPS 2018; Lin et al., Deep Gradient Compression, ICLR 2018): see [`super::Sender`].

use bytes::Bytes;

use super::{
    Codec, Share,
    sparse::{Samples, read_values, write_values},
    words::{into_bytes, words},
};
use crate::tensor::{DType, HostTensor, TensorError};

pub struct TopK {
    name: String,
    share: Share,
}

impl TopK {
    pub fn new(share: Share) -> Self {
        Self { name: format!("topk:{share}"), share }
    }

    fn samples(&self, shape: &[usize]) -> Result<Samples, TensorError> {
        Samples::of(shape, self.share)
    }
}

impl Codec for TopK {
    fn name(&self) -> &str {
        &self.name
    }

    fn encode(&self, tensor: HostTensor) -> Bytes {
        let samples = self.samples(tensor.shape()).expect("a tensor that is in memory");
        let data = tensor.into_data();
        let values = words::<f32>(&data);
        let mut places = Vec::with_capacity(samples.total_kept());
        let mut sizes = Vec::new();
        for sample in values.chunks(samples.elements.max(1)) {
            largest(sample, samples.kept, &mut sizes, &mut places);
        }
        let packing = Packing::least(&places, samples);
        let mut out = Vec::with_capacity(4 * places.len() + 1 + packing.bytes(&places, samples));
        let rows = values.chunks(samples.elements.max(1)).zip(places.chunks(samples.kept.max(1)));
        let kept = rows.flat_map(|(sample, places)| places.iter().map(|&at| sample[at as usize]));
        write_values(kept, &mut out);
        out.push(packing as u8);
        packing.write(&places, samples, &mut out);
        out.into()
    }

    fn decode(&self, shape: Vec<usize>, data: Bytes) -> Result<HostTensor, TensorError> {
        let samples = self.samples(&shape)?;
        let refuse = |problem: &str| TensorError::Encoding {
            codec: self.name.clone(),
            problem: format!("shape {shape:?}: {problem}"),
        };
        let (kept, rest) = data
            .split_at_checked(4 * samples.total_kept())
            .ok_or_else(|| refuse("values are missing"))?;
        let (&packing, packed) = rest.split_first().ok_or_else(|| refuse("places are missing"))?;
        let packing = Packing::ALL.into_iter().find(|p| *p as u8 == packing);
        let packing = packing.ok_or_else(|| refuse("places are packed in an unknown way"))?;
        let places = packing.read(packed, samples).ok_or_else(|| refuse("places are wrong"))?;
        let mut values = vec![0f32; samples.total()];
        let rows = values.chunks_mut(samples.elements.max(1));
        let mut kept = read_values(kept);
        for (sample, places) in rows.zip(places.chunks(samples.kept.max(1))) {
            for (&at, value) in places.iter().zip(&mut kept) {
                sample[at as usize] = value;
            }
        }
        HostTensor::new(DType::F32, shape, into_bytes(values))
    }

    fn most_bytes(&self, shape: &[usize]) -> Result<usize, TensorError> {
        let samples = self.samples(shape)?;
        Ok(4 * samples.total_kept() + 1 + Packing::Bitmap.bytes(&[], samples))
    }

    fn is_sparse(&self) -> bool {
        true
    }
}

/// Adds the places of the `kept` largest magnitudes, in ascending order. `sizes` is room to work in.
fn largest(sample: &[f32], kept: usize, sizes: &mut Vec<u32>, places: &mut Vec<u32>) {
    if kept == 0 {
        return;
    }
    // Magnitudes of floats are in the order of their bits, NaN last.
    let size = |v: &f32| v.to_bits() & 0x7fff_ffff;
    sizes.clear();
    sizes.extend(sample.iter().map(size));
    let (_, &mut least, above) = sizes.select_nth_unstable(sample.len() - kept);
    let mut equal = kept - above.iter().filter(|&&size| size > least).count();
    for (at, value) in sample.iter().enumerate() {
        let size = size(value);
        if size > least {
            places.push(at as u32);
        } else if size == least && equal > 0 {
            equal -= 1;
            places.push(at as u32);
        }
    }
}

/// How places are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Bitmap = 0,
    Gaps = 1,
    Short = 2,
    Long = 3,
}

impl Packing {
    const ALL: [Self; 4] = [Self::Bitmap, Self::Gaps, Self::Short, Self::Long];

    fn least(places: &[u32], samples: Samples) -> Self {
        let fits = |p: &Self| *p != Self::Short || samples.elements <= 1 << 16;
        let fitting = Self::ALL.into_iter().filter(fits);
        fitting.min_by_key(|p| p.bytes(places, samples)).expect("some always fit")
    }

    fn bytes(self, places: &[u32], samples: Samples) -> usize {
        match self {
            Self::Bitmap => samples.count * samples.elements.div_ceil(8),
            Self::Gaps => gaps(places, samples).map(varint_bytes).sum(),
            Self::Short => 2 * places.len(),
            Self::Long => 4 * places.len(),
        }
    }

    fn write(self, places: &[u32], samples: Samples, out: &mut Vec<u8>) {
        match self {
            Self::Bitmap => {
                for places in places.chunks(samples.kept.max(1)) {
                    let begin = out.len();
                    out.resize(begin + samples.elements.div_ceil(8), 0);
                    places.iter().for_each(|at| out[begin + *at as usize / 8] |= 1 << (at % 8));
                }
            }
            Self::Gaps => gaps(places, samples).for_each(|gap| write_varint(gap, out)),
            Self::Short => {
                places.iter().for_each(|&at| out.extend_from_slice(&(at as u16).to_le_bytes()));
            }
            Self::Long => places.iter().for_each(|at| out.extend_from_slice(&at.to_le_bytes())),
        }
    }

    /// The places of all samples; none if any is out of range, out of order, missing or too many.
    fn read(self, packed: &[u8], samples: Samples) -> Option<Vec<u32>> {
        // Every way to write them takes a bit or more for each.
        if samples.total_kept() > packed.len().saturating_mul(8) {
            return None;
        }
        let mut places = Vec::with_capacity(samples.total_kept());
        match self {
            Self::Bitmap => {
                (packed.len() == self.bytes(&[], samples)).then_some(())?;
                for row in packed.chunks(samples.elements.div_ceil(8).max(1)) {
                    for (byte, &bits) in row.iter().enumerate() {
                        let set = (0..8).filter(|bit| bits >> bit & 1 == 1);
                        places.extend(set.map(|bit| (8 * byte + bit) as u32));
                    }
                }
            }
            Self::Gaps => {
                let mut rest = packed;
                for place in 0..samples.total_kept() {
                    let first = place % samples.kept == 0;
                    let begin = if first { 0 } else { u64::from(*places.last()?) + 1 };
                    let at = begin + read_varint(&mut rest)?;
                    places.push(u32::try_from(at).ok()?);
                }
                rest.is_empty().then_some(())?;
            }
            Self::Short => {
                let (whole, rest) = packed.as_chunks::<2>();
                rest.is_empty().then_some(())?;
                places.extend(whole.iter().map(|b| u32::from(u16::from_le_bytes(*b))));
            }
            Self::Long => {
                let (whole, rest) = packed.as_chunks::<4>();
                rest.is_empty().then_some(())?;
                places.extend(whole.iter().map(|b| u32::from_le_bytes(*b)));
            }
        }
        let in_order = |row: &[u32]| {
            row.is_sorted_by(|a, b| a < b)
                && row.last().is_none_or(|&last| (last as usize) < samples.elements)
        };
        let whole = places.len() == samples.total_kept();
        (whole && places.chunks(samples.kept.max(1)).all(in_order)).then_some(places)
    }
}

/// Elements between a place and the one before it, or the sample's begin.
fn gaps(places: &[u32], samples: Samples) -> impl Iterator<Item = u32> {
    places.chunks(samples.kept.max(1)).flat_map(|places| {
        let before = std::iter::once(0).chain(places.iter().map(|at| at + 1));
        places.iter().zip(before).map(|(at, before)| at - before)
    })
}

fn varint_bytes(value: u32) -> usize {
    (32 - value.leading_zeros()).div_ceil(7).max(1) as usize
}

fn write_varint(mut value: u32, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codec(share: &str) -> TopK {
        TopK::new(share.parse().unwrap())
    }

    fn through(codec: &TopK, tensor: &HostTensor) -> Vec<f32> {
        let sent = codec.encode(tensor.clone());
        assert!(sent.len() <= codec.most_bytes(tensor.shape()).unwrap());
        codec.decode(tensor.shape().to_vec(), sent).unwrap().to_f32().unwrap()
    }

    proptest! {
        #[test]
        fn the_largest_are_kept_and_nothing_else(
            shape in prop::collection::vec(0usize..9, 0..4), share in 1e-4f64..1.0, scale in 1u32..1000,
            seed in any::<u64>(),
        ) {
            let codec = codec(&share.to_string());
            let count = shape.iter().product::<usize>();
            let mut draws = crate::codec::dither::Draws::new(seed, 0);
            // Few values, so that many are equal.
            let values: Vec<f32> =
                (0..count).map(|_| draws.below(scale as usize) as f32 - 7.0).collect();
            let found = through(&codec, &HostTensor::from_f32(shape.clone(), &values));
            let samples = codec.samples(&shape).unwrap();
            let rows = values.chunks(samples.elements.max(1));
            for (sample, found) in rows.zip(found.chunks(samples.elements.max(1))) {
                let mut order: Vec<usize> = (0..sample.len()).collect();
                // Stable: of equals the first.
                order.sort_by(|&a, &b| sample[b].abs().total_cmp(&sample[a].abs()));
                for (rank, &at) in order.iter().enumerate() {
                    let expected = if rank < samples.kept { sample[at] } else { 0.0 };
                    prop_assert_eq!(found[at], expected);
                }
            }
        }

        #[test]
        fn places_survive_every_packing(
            count in 1usize..4, elements in prop_oneof![1usize..40, 60_000usize..70_000, Just(300_000)],
            kept in 1usize..40, seed in any::<u64>(),
        ) {
            let samples = Samples { count, elements, kept: kept.min(elements) };
            let mut draws = crate::codec::dither::Draws::new(seed, 0);
            let places: Vec<u32> = (0..count).flat_map(|_| {
                let mut all = std::collections::BTreeSet::new();
                while all.len() < samples.kept { all.insert(draws.below(elements) as u32); }
                all
            }).collect();
            for packing in Packing::ALL {
                if packing == Packing::Short && elements > 1 << 16 { continue }
                let mut packed = Vec::new();
                packing.write(&places, samples, &mut packed);
                prop_assert_eq!(packed.len(), packing.bytes(&places, samples));
                prop_assert_eq!(packing.read(&packed, samples), Some(places.clone()));
                prop_assert_eq!(packing.read(&packed[..packed.len() - 1], samples), None);
            }
        }

        #[test]
        fn any_bytes_are_a_tensor_or_an_error(
            shape in prop::collection::vec(0usize..9, 0..4), data in prop::collection::vec(any::<u8>(), 0..300),
            packing in 0u8..5,
        ) {
            let codec = codec("0.2");
            let kept = 4 * codec.samples(&shape).unwrap().total_kept();
            let mut data = data;
            if let Some(byte) = data.get_mut(kept) {
                *byte = packing;
            }
            if let Ok(tensor) = codec.decode(shape.clone(), data.into()) {
                prop_assert_eq!(tensor.shape(), &shape[..]);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_kept_first() {
        let mut values = vec![1e30f32; 20];
        (values[7], values[13]) = (f32::NAN, f32::NEG_INFINITY);
        let found = through(&codec("0.1"), &HostTensor::from_f32(vec![1, 20], &values));
        assert!(found[7].is_nan());
        assert_eq!(found[13], f32::NEG_INFINITY);
        assert_eq!(found.iter().filter(|v| **v == 0.0).count(), 18);
    }

    #[test]
    fn a_tenth_takes_an_eighth_of_the_bytes() {
        let values: Vec<f32> = (0..64 * 1000).map(|i| ((i * 7919) % 1009) as f32 - 500.0).collect();
        let tensor = HostTensor::from_f32(vec![64, 1000], &values);
        let whole = tensor.data().len() as f64;
        let ratio = whole / codec("0.1").encode(tensor).len() as f64;
        assert!(ratio > 7.9, "{ratio}");
    }
}
