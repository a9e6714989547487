//! Standardisation: each feature, or each channel of an image, to mean 0 and standard deviation 1.
//!
//! Mean and deviation are those of the training part alone: what is measured with must not have been
//! seen. They belong to the trained model, so they are kept with the prepared data, and the edge
//! does to a request what was done to the samples.

use serde::{Deserialize, Serialize};

use super::{DataError, Dataset};
use crate::{
    model::Port,
    progress::{Progress, Steps},
    tensor::{DType, HostTensor},
};

/// What is done to one FP32 input: `(value - mean) / deviation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// The data set's name of the input.
    pub input: String,
    /// Values that follow one another in a sample and share mean and deviation.
    pub run: usize,
    /// Of each feature or channel.
    pub mean: Vec<f32>,
    /// Of each feature or channel; 1 where all values are equal.
    pub deviation: Vec<f32>,
}

impl Normalisation {
    /// Mean and deviation of every FP32 input over the samples at `indices`: by channel for
    /// `[channels, height, width]`, else by the last dimension. `progress` is told of each input of each sample.
    pub fn measure(dataset: &dyn Dataset, indices: &[usize], progress: Progress<'_>) -> Vec<Self> {
        let ports = dataset.inputs().into_iter().enumerate();
        let floats: Vec<_> = ports.filter(|(_, port)| port.dtype == DType::F32).collect();
        let steps = Steps::new("measuring means", floats.len() * indices.len(), progress);
        let one = |(number, port): (usize, Port)| {
            let (groups, run) = match port.largest()[..] {
                [channels, height, width] => (channels, height * width),
                ref shape => (shape.last().copied().unwrap_or(1), 1),
            };
            let mut moments = vec![Moments::default(); groups];
            let mut bytes = Vec::new();
            for &index in indices {
                bytes.clear();
                dataset.write_input(index, number, &mut bytes);
                for (i, value) in floats_of(&bytes).enumerate() {
                    moments[i / run % groups].add(value.into());
                }
                steps.step();
            }
            let mean = moments.iter().map(|m| m.mean as f32).collect();
            let deviation = moments.iter().map(Moments::deviation).collect();
            Self { input: port.name, run, mean, deviation }
        };
        floats.into_iter().map(one).collect()
    }

    /// Does it to values of whole samples, little-endian FP32.
    pub fn apply_bytes(&self, bytes: &mut [u8]) {
        let groups = self.mean.len();
        for (i, quad) in bytes.chunks_exact_mut(4).enumerate() {
            let group = i / self.run % groups;
            let value = f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]);
            let value = (value - self.mean[group]) / self.deviation[group];
            quad.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Does it to a batch.
    pub fn apply(&self, tensor: HostTensor) -> HostTensor {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let mut bytes = tensor.into_data().to_vec();
        self.apply_bytes(&mut bytes);
        HostTensor::new(dtype, shape, bytes.into()).expect("as long as before")
    }

    /// Refuses what a damaged manifest could say.
    pub fn check(&self) -> Result<(), DataError> {
        let sizes = !self.mean.is_empty() && self.mean.len() == self.deviation.len();
        let usable = self.deviation.iter().all(|d| d.is_finite() && *d > 0.0);
        if sizes && usable && self.run > 0 && self.mean.iter().all(|m| m.is_finite()) {
            return Ok(());
        }
        Err(DataError::Normalisation { input: self.input.clone() })
    }
}

pub(super) fn floats_of(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Mean and variance in one pass (Welford 1962).
#[derive(Clone, Default)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (value - self.mean);
    }

    /// Of the population; 1 where there is no spread, which no division should blow up.
    fn deviation(&self) -> f32 {
        let deviation = (self.squares / self.count.max(1) as f64).sqrt() as f32;
        if deviation > 1e-12 { deviation } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{Column, Table, Target, table::integer_bytes},
        progress::unseen,
    };

    fn measured(set: &Table) -> Normalisation {
        let [of_input] = &Normalisation::measure(set, &[0, 1], &unseen)[..] else {
            panic!("one input")
        };
        of_input.clone()
    }

    fn table(shape: &[usize], values: &[f32]) -> Table {
        let samples = values.len() / shape.iter().product::<usize>();
        Table {
            name: "t".into(),
            samples,
            inputs: vec![Column::floats("x", shape, values)],
            target: Target::numbered(1),
            labels: integer_bytes(&vec![0; samples]),
        }
    }

    #[test]
    fn features_have_mean_0_and_deviation_1_over_the_measured_part() {
        let values = [1.0, 10.0, 5.0, 3.0, 30.0, 5.0, 1e6, -1e6, 7.0];
        let set = table(&[3], &values);
        // The third sample is not of the part.
        let by_feature = measured(&set);
        assert_eq!(by_feature.mean, [2.0, 20.0, 5.0]);
        assert_eq!(by_feature.deviation, [1.0, 10.0, 1.0]);
        let batch = HostTensor::from_f32(vec![2, 3], &values[..6]);
        assert_eq!(by_feature.apply(batch).to_f32().unwrap(), [-1.0, -1.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn images_are_normalised_by_channel() {
        let set = table(&[2, 1, 2], &[0.0, 2.0, 10.0, 10.0, 0.0, 2.0, 30.0, 30.0]);
        let by_channel = measured(&set);
        assert_eq!((by_channel.run, &by_channel.mean[..]), (2, &[1.0, 20.0][..]));
        assert_eq!(by_channel.deviation, [1.0, 10.0]);
        let done =
            by_channel.apply(HostTensor::from_f32(vec![1, 2, 1, 2], &[0.0, 2.0, 10.0, 30.0]));
        assert_eq!(done.to_f32().unwrap(), [-1.0, 1.0, -1.0, 1.0]);
    }
}
