//! The sending side of a training run's gradients.
//!
//! Gradients are added up, step after step, so what an encoding gets wrong should cancel out: integers are
//! rounded by chance, with a seed made of step, micro-batch and tensor. What a sparse codec leaves out is
//! kept, and added to what the same row of the batch sends in the next step (error feedback; Stich et al.,
//! NeurIPS 2018). Both are functions of the run's state and the step alone, so a step that is prepared again
//! sends the same bytes, and what is kept changes when the step is committed.
//!
//! Activations have none of this: each stands for one sample, and what another sample left out is not
//! missing from it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    SharedCodec, dither,
    words::{into_bytes, words},
};
use crate::tensor::{DType, HostTensor};

/// What was left out of gradients up to a step, by tensor; part of its checkpoint.
pub type LeftOut = Vec<(String, HostTensor)>;

pub struct Sender {
    codec: SharedCodec,
    /// After the step that was committed last.
    committed: BTreeMap<String, HostTensor>,
    /// Of the micro-batches of the step that is being prepared, one after the other.
    prepared: BTreeMap<String, Rows>,
}

/// Rows of one tensor, micro-batch behind micro-batch.
#[derive(Default)]
struct Rows {
    /// Shape of a row.
    row: Vec<usize>,
    values: Vec<f32>,
}

/// The seed of a gradient's tensor, at the place that these numbers name.
pub fn seed(name: &str, place: &[u64]) -> u64 {
    let text = name.bytes().map(u64::from);
    dither::seed(&text.chain(place.iter().copied()).collect::<Vec<_>>())
}

impl Sender {
    /// `left_out` is what [`Sender::left_out`] gave after the step that the run is at.
    pub fn new(codec: SharedCodec, left_out: LeftOut) -> Self {
        Self { codec, committed: left_out.into_iter().collect(), prepared: BTreeMap::new() }
    }

    pub fn codec(&self) -> &SharedCodec {
        &self.codec
    }

    /// Forgets what was prepared of a step: it begins anew.
    pub fn forget(&mut self) {
        self.prepared.clear();
    }

    /// Encodes a tensor of the next micro-batch of a step.
    pub fn encode(&mut self, name: &str, tensor: HostTensor, step: u64, micro_batch: u32) -> Bytes {
        let seed = seed(name, &[step, micro_batch.into()]);
        match self.codec.is_sparse() {
            true => self.encode_with_rest(name, tensor, seed),
            false => self.codec.encode_seeded(tensor, seed),
        }
    }

    fn encode_with_rest(&mut self, name: &str, tensor: HostTensor, seed: u64) -> Bytes {
        let shape = tensor.shape().to_vec();
        let row = shape.get(1..).unwrap_or_default();
        let prepared = self.prepared.entry(name.into()).or_default();
        if prepared.row != row {
            *prepared = Rows { row: row.to_vec(), values: Vec::new() };
        }
        let data = tensor.into_data();
        let mut wanted = words::<f32>(&data).into_owned();
        // Rows of another shape, as of longer texts, are other things.
        let known = self.committed.get(name).filter(|known| known.shape().get(1..) == Some(row));
        if let Some(known) = known {
            let left = words::<f32>(known.data());
            let left = left.iter().skip(prepared.values.len());
            wanted.iter_mut().zip(left).for_each(|(value, left)| *value += left);
        }
        let wanted = into_bytes(wanted);
        let tensor = HostTensor::new(DType::F32, shape.clone(), wanted.clone());
        let tensor = tensor.expect("as many values as before");
        let sent = self.codec.encode_with_rest(tensor, seed);
        let seen = self.codec.decode(shape, sent.clone()).expect("what was just encoded");
        let (wanted, seen) = (words::<f32>(&wanted), words::<f32>(seen.data()));
        let rest = wanted.iter().zip(seen.iter()).map(|(wanted, seen)| {
            let rest = wanted - seen;
            // What is broken was sent so; it would stay for ever.
            if rest.is_finite() { rest } else { 0.0 }
        });
        prepared.values.extend(rest);
        sent
    }

    /// The step is taken: what it left out is what the next one adds.
    pub fn commit(&mut self) {
        for (name, Rows { row, mut values }) in std::mem::take(&mut self.prepared) {
            if let Some(known) = self.committed.get(&name)
                && known.shape().get(1..) == Some(&row[..])
            {
                // A smaller batch leaves the other rows as they were.
                values.extend(words::<f32>(known.data()).iter().skip(values.len()));
            }
            let width = row.iter().product::<usize>().max(1);
            let shape = [vec![values.len() / width], row].concat();
            // A tensor without elements leaves nothing out.
            if let Ok(tensor) = HostTensor::new(DType::F32, shape, into_bytes(values)) {
                self.committed.insert(name, tensor);
            }
        }
    }

    pub fn left_out(&self) -> LeftOut {
        self.committed.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::by_name;

    const WIDTH: usize = 12;

    fn sender(codec: &str) -> Sender {
        Sender::new(by_name(codec).unwrap(), LeftOut::new())
    }

    fn batch(rows: usize, seed: u64) -> HostTensor {
        let mut draws = dither::Draws::new(seed, 9);
        let values: Vec<f32> =
            (0..rows * WIDTH).map(|_| draws.below(2001) as f32 / 1000.0 - 1.0).collect();
        HostTensor::from_f32(vec![rows, WIDTH], &values)
    }

    fn decoded(sender: &Sender, rows: usize, sent: Bytes) -> Vec<f32> {
        sender.codec().decode(vec![rows, WIDTH], sent).unwrap().to_f32().unwrap()
    }

    proptest! {
        /// Nothing is lost: what arrived and what is still kept add up to what there was to send.
        #[test]
        fn what_is_left_out_is_sent_later(
            rows in prop::collection::vec(1usize..6, 1..20), micro in 1usize..4, seed in 0u64..1000,
            codec in prop::sample::select(vec!["topk:0.1", "randk:0.3", "topk:0.25+zstd"]),
        ) {
            let mut sender = sender(codec);
            let most = *rows.iter().max().unwrap();
            let (mut wanted, mut arrived) = (vec![0f64; most * WIDTH], vec![0f64; most * WIDTH]);
            for (step, &rows) in (1u64..).zip(&rows) {
                let values = batch(rows, seed + step).to_f32().unwrap();
                wanted.iter_mut().zip(&values).for_each(|(sum, v)| *sum += f64::from(*v));
                let mut found = Vec::new();
                for (index, part) in values.chunks(micro * WIDTH).enumerate() {
                    let rows = part.len() / WIDTH;
                    let tensor = HostTensor::from_f32(vec![rows, WIDTH], part);
                    let sent = sender.encode("x", tensor, step, index as u32);
                    found.extend(decoded(&sender, rows, sent));
                }
                arrived.iter_mut().zip(&found).for_each(|(sum, v)| *sum += f64::from(*v));
                sender.commit();
            }
            let left = sender.left_out()[0].1.to_f32().unwrap();
            for ((wanted, arrived), left) in wanted.iter().zip(&arrived).zip(&left) {
                prop_assert!((wanted - arrived - f64::from(*left)).abs() < 1e-4);
            }
        }

        #[test]
        fn a_step_that_is_prepared_again_sends_the_same(
            seed in 0u64..1000, again in 0usize..3,
            codec in prop::sample::select(vec!["int8", "int4", "topk:0.1", "randk:0.3"]),
        ) {
            let (mut plain, mut disturbed) = (sender(codec), sender(codec));
            for step in 1..6 {
                for _ in 0..again {
                    disturbed.encode("x", batch(3, seed), step, 0);
                    disturbed.forget();
                }
                let tensor = batch(3, seed + step);
                let sent = plain.encode("x", tensor.clone(), step, 0);
                prop_assert_eq!(&sent, &disturbed.encode("x", tensor, step, 0));
                plain.commit();
                // As after a restart from a checkpoint.
                disturbed.commit();
                let kept = disturbed.left_out();
                disturbed = Sender::new(by_name(codec).unwrap(), kept);
            }
            prop_assert_eq!(plain.left_out(), disturbed.left_out());
        }
    }

    #[test]
    fn what_is_broken_is_sent_and_not_kept() {
        let mut sender = sender("topk:0.1");
        let mut values = vec![1.0; WIDTH];
        values[3] = f32::NAN;
        let sent = sender.encode("x", HostTensor::from_f32(vec![1, WIDTH], &values), 1, 0);
        assert!(decoded(&sender, 1, sent)[3].is_nan());
        sender.commit();
        assert!(sender.left_out()[0].1.to_f32().unwrap().iter().all(|v| v.is_finite()));
    }

    #[test]
    fn integers_keep_nothing_and_are_rounded_by_chance() {
        let mut sender = sender("int8");
        let tensor = batch(4, 1);
        let first = sender.encode("x", tensor.clone(), 1, 0);
        assert_ne!(first, sender.encode("x", tensor.clone(), 2, 0), "step");
        assert_ne!(first, sender.encode("x", tensor.clone(), 1, 1), "micro-batch");
        assert_ne!(first, sender.encode("y", tensor.clone(), 1, 0), "tensor");
        sender.commit();
        assert!(sender.left_out().is_empty());
    }
}
