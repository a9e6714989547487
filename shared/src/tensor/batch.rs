//! Tensors of several requests as one batch, and what came of it as several again.

use bytes::{Bytes, BytesMut};

use super::{HostTensor, TensorError};

/// Puts tensors together along their first dimension: `[a, …]` and `[b, …]` become `[a + b, …]`. One copy of each.
/// None if anything else about them differs, or there are none.
pub fn join(parts: &[&HostTensor]) -> Option<HostTensor> {
    let (first, rest) = parts.split_first()?;
    let (_, sample) = first.shape.split_first()?;
    let same = |part: &&HostTensor| {
        part.dtype == first.dtype && part.shape.split_first().is_some_and(|(_, s)| s == sample)
    };
    if !rest.iter().all(same) {
        return None;
    }
    let mut data = BytesMut::with_capacity(parts.iter().map(|part| part.data.len()).sum());
    parts.iter().for_each(|part| data.extend_from_slice(&part.data));
    let batch = parts.iter().map(|part| part.shape[0]).sum();
    let shape = [&[batch], sample].concat();
    Some(HostTensor { dtype: first.dtype, shape, data: data.freeze() })
}

/// The reverse: so many samples for each. No copy. An error if they are not all of the batch.
pub fn split(whole: &HostTensor, samples: &[usize]) -> Result<Vec<HostTensor>, TensorError> {
    let wrong = || TensorError::Encoding {
        codec: "batch".into(),
        problem: format!("{:?} is not {} samples", whole.shape, samples.iter().sum::<usize>()),
    };
    let (&batch, sample) = whole.shape.split_first().ok_or_else(wrong)?;
    if samples.iter().sum::<usize>() != batch {
        return Err(wrong());
    }
    let bytes = whole.data.len().checked_div(batch).unwrap_or(0);
    let mut at = 0;
    let part = |&count: &usize| {
        let data: Bytes = whole.data.slice(at..at + count * bytes);
        at += count * bytes;
        HostTensor { dtype: whole.dtype, shape: [&[count], sample].concat(), data }
    };
    Ok(samples.iter().map(part).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_is_not_joined() {
        let floats = |shape: &[usize]| {
            HostTensor::from_f32(shape.to_vec(), &vec![0.0; shape.iter().product()])
        };
        let a = floats(&[2, 3]);
        assert!(join(&[]).is_none());
        assert!(join(&[&a, &floats(&[2, 4])]).is_none());
        assert!(join(&[&a, &floats(&[2])]).is_none());
        assert!(join(&[&a, &HostTensor::from_i64(vec![1, 3], &[0; 3])]).is_none());
        assert!(join(&[&floats(&[])]).is_none());
        assert_eq!(join(&[&a, &a]).map(|t| t.shape().to_vec()), Some(vec![4, 3]));
        assert!(split(&a, &[1, 2]).is_err() && split(&floats(&[]), &[1]).is_err());
    }

    proptest! {
        #[test]
        fn what_was_joined_comes_apart_again(samples in prop::collection::vec(0usize..4, 1..6), width in 0usize..4) {
            let parts: Vec<HostTensor> = samples
                .iter()
                .map(|&n| {
                    let values: Vec<f32> = (0..n * width).map(|i| (i + n) as f32).collect();
                    HostTensor::from_f32(vec![n, width], &values)
                })
                .collect();
            let whole = join(&parts.iter().collect::<Vec<_>>()).unwrap();
            prop_assert_eq!(whole.shape()[0], samples.iter().sum::<usize>());
            prop_assert_eq!(split(&whole, &samples).unwrap(), parts);
        }
    }
}
