//! The named tensors of several requests as one batch, and apart again.

use super::NamedTensors;
use crate::tensor::{HostTensor, batch};

/// Tensors of several requests as one, by their place; one copy. None if they differ in more than the number of samples.
pub fn join(requests: &[&NamedTensors]) -> Option<NamedTensors> {
    let first = requests.first()?;
    let all = |at: usize| -> Option<Vec<&HostTensor>> {
        requests.iter().map(|inputs| inputs.get(at).map(|(_, tensor)| tensor)).collect()
    };
    let one = |(at, (name, _)): (usize, &(String, HostTensor))| {
        Some((name.clone(), batch::join(&all(at)?)?))
    };
    first.iter().enumerate().map(one).collect()
}

/// The reverse, for requests of so many samples each; no copy. None if the samples are not all of a tensor's.
pub fn apart(outputs: &NamedTensors, samples: &[usize]) -> Option<Vec<NamedTensors>> {
    let mut requests = vec![NamedTensors::new(); samples.len()];
    for (name, tensor) in outputs {
        let parts = batch::split(tensor, samples).ok()?;
        for (request, part) in requests.iter_mut().zip(parts) {
            request.push((name.clone(), part));
        }
    }
    Some(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], scale: f32) -> HostTensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| i as f32 * scale).collect();
        HostTensor::from_f32(shape.to_vec(), &values)
    }

    #[test]
    fn what_was_joined_comes_apart_again() {
        let request = |samples: usize| -> NamedTensors {
            vec![
                ("a".into(), floats(&[samples, 3], samples as f32)),
                ("b".into(), HostTensor::from_i64(vec![samples], &vec![5; samples])),
            ]
        };
        let requests = [request(1), request(3), request(2)];
        let whole = join(&requests.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(whole[0].1.shape(), [6, 3]);
        assert_eq!(apart(&whole, &[1, 3, 2]).unwrap(), requests);
        assert_eq!(apart(&whole, &[1, 3]), None);
        assert_eq!(join(&[&requests[0], &request(1)[..1].to_vec()]), None);
    }
}
