//! What `topk` and `randk` have in common: how many elements of a sample are kept, and what the gradient
//! of the others is.

use std::{fmt, str::FromStr};

use super::words::{into_bytes, words};
use crate::tensor::{DType, HostTensor, TensorError, byte_length};

/// Share of a sample's elements that is kept, from 0.0001 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(f64);

/// A tensor as samples of equally many elements, of each of which equally many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    pub count: usize,
    /// Of each sample.
    pub elements: usize,
    pub kept: usize,
}

impl Share {
    /// How many of so many elements, at least one if there is one.
    pub fn of(self, elements: usize) -> usize {
        // A tenth of 30 is 3, whatever the product's last bit says.
        let kept = (self.0 * elements as f64 - 1e-6).ceil();
        (kept as usize).clamp(elements.min(1), elements)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = text.parse().ok().filter(|share| (1e-4..=1.0).contains(share));
        share.map(Self).ok_or_else(|| format!("the share {text:?}; allowed: 0.0001 to 1"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Samples {
    /// The first dimension counts the samples; without one there is one sample.
    pub fn of(shape: &[usize], share: Share) -> Result<Self, TensorError> {
        byte_length(DType::F32, shape)?;
        let (count, sample) =
            shape.split_first().map_or((1, shape), |(&count, rest)| (count, rest));
        // No work and no memory for what is empty: of no samples that a peer says are large, or of many that have nothing.
        if shape.contains(&0) {
            return Ok(Self { count: 0, elements: 0, kept: 0 });
        }
        let elements = sample.iter().product();
        Ok(Self { count, elements, kept: share.of(elements) })
    }

    /// Elements of all samples.
    pub fn total(self) -> usize {
        self.count * self.elements
    }

    /// Elements that are kept of all samples.
    pub fn total_kept(self) -> usize {
        self.count * self.kept
    }
}

/// The gradient of activations of which a sparse codec sent a part, as `activations` arrived: what was left
/// out had no influence on the loss. Tensors are found by name.
pub fn of_what_was_sent(
    gradient: Vec<(String, HostTensor)>,
    activations: &[(String, HostTensor)],
) -> Vec<(String, HostTensor)> {
    let one = |(name, tensor): (String, HostTensor)| {
        let sent = activations.iter().find(|(known, _)| *known == name).map(|(_, sent)| sent);
        let tensor = match sent.filter(|sent| sent.shape() == tensor.shape()) {
            Some(sent) => masked(&tensor, sent),
            None => tensor,
        };
        (name, tensor)
    };
    gradient.into_iter().map(one).collect()
}

fn masked(gradient: &HostTensor, sent: &HostTensor) -> HostTensor {
    let (values, sent) = (words::<f32>(gradient.data()), words::<f32>(sent.data()));
    let kept = values.iter().zip(sent.iter()).map(|(&v, &sent)| if sent == 0.0 { 0.0 } else { v });
    let kept = into_bytes(kept.collect::<Vec<f32>>());
    HostTensor::new(DType::F32, gradient.shape().to_vec(), kept).expect("as many values as before")
}

pub fn write_values(values: impl Iterator<Item = f32>, out: &mut Vec<u8>) {
    values.for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
}

pub fn read_values(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        let share: Share = "0.1".parse().unwrap();
        let kept: Vec<_> = [0, 1, 10, 11, 30, 1000].into_iter().map(|n| share.of(n)).collect();
        assert_eq!(kept, [0, 1, 1, 2, 3, 100]);
        let all: Share = "1".parse().unwrap();
        assert_eq!(all.of(77), 77);
    }

    #[test]
    fn what_was_not_sent_has_no_gradient() {
        let named = |name: &str, values: &[f32]| {
            (name.to_string(), HostTensor::from_f32(vec![1, values.len()], values))
        };
        let gradient = vec![named("x", &[1.0, 2.0, 3.0]), named("mask", &[4.0])];
        let found = of_what_was_sent(gradient, &[named("x", &[0.0, -5.0, f32::NAN])]);
        assert_eq!(found, [named("x", &[0.0, 2.0, 3.0]), named("mask", &[4.0])]);
    }

    #[test]
    fn samples_are_the_first_dimension() {
        let share: Share = "0.5".parse().unwrap();
        let of = |shape: &[usize]| {
            let Samples { count, elements, kept } = Samples::of(shape, share).unwrap();
            (count, elements, kept)
        };
        assert_eq!(of(&[3, 2, 4]), (3, 8, 4));
        assert_eq!(of(&[]), (1, 1, 1));
        assert_eq!(of(&[5]), (5, 1, 1));
        assert_eq!(of(&[0, 1 << 40]), (0, 0, 0));
        assert_eq!(of(&[4, 0]), (0, 0, 0));
        assert!(Samples::of(&[usize::MAX, 2], share).is_err());
    }
}
