//! Which samples each training step takes: a pure function of the seed and the step's number.
//!
//! A sampler with a position would have to be part of every checkpoint, and a run that resumes or
//! repeats a step after a lost link would drift from one that did not. Here there is no position:
//! step 1000 has the same batch whether or not this process has seen steps 1 to 999.

use super::{DataError, shuffle::shuffle};

/// The batches of every step; steps and epochs count from 1.
///
/// An epoch takes each sample once, in an order of its own; its last batch may be smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    indices: Vec<usize>,
    batch_size: usize,
    seed: u64,
}

impl BatchPlan {
    /// Refuses a batch size of zero, and an empty `indices`: no step would have a batch.
    pub fn new(indices: Vec<usize>, batch_size: usize, seed: u64) -> Result<Self, DataError> {
        if indices.is_empty() {
            return Err(DataError::NoSamples);
        }
        if batch_size == 0 {
            return Err(DataError::BatchSize);
        }
        Ok(Self { indices, batch_size, seed })
    }

    /// At least one.
    pub fn steps_per_epoch(&self) -> u64 {
        self.indices.len().div_ceil(self.batch_size) as u64
    }

    /// The epoch that a step belongs to.
    ///
    /// # Panics
    /// If `step` is 0: steps count from 1.
    pub fn epoch_of(&self, step: u64) -> u64 {
        self.locate(step).0
    }

    /// The sample indices of a step's batch, never none.
    ///
    /// The order of the whole epoch is made anew each time; for the 42,000 samples of an MNIST
    /// split that is a fraction of a millisecond, which a cache is not worth.
    ///
    /// # Panics
    /// If `step` is 0: steps count from 1.
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let (epoch, place) = self.locate(step);
        let mut order = self.indices.clone();
        shuffle(&mut order, b"cleave:batch:v1\0", self.seed, epoch);
        let start = place * self.batch_size;
        let end = order.len().min(start.saturating_add(self.batch_size));
        order[start..end].to_vec()
    }

    /// The epoch of a step (from 1) and the step's place in it (from 0).
    fn locate(&self, step: u64) -> (u64, usize) {
        assert!(step > 0, "steps count from 1");
        let per_epoch = self.steps_per_epoch();
        ((step - 1) / per_epoch + 1, ((step - 1) % per_epoch) as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(plan: &BatchPlan, epoch: u64) -> Vec<Vec<usize>> {
        let steps = plan.steps_per_epoch();
        ((epoch - 1) * steps + 1..=epoch * steps).map(|step| plan.batch(step)).collect()
    }

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(
            indices in prop::collection::btree_set(0usize..1000, 1..100),
            size in 1usize..40, seed: u64, number in 1u64..1 << 40,
        ) {
            let indices: Vec<usize> = indices.into_iter().collect();
            let plan = BatchPlan::new(indices.clone(), size, seed).unwrap();
            let batches = epoch(&plan, number);
            let (last, full) = batches.split_last().unwrap();
            prop_assert!(full.iter().all(|batch| batch.len() == size));
            prop_assert!((1..=size).contains(&last.len()));
            let mut all = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, indices);
        }

        #[test]
        fn a_step_does_not_depend_on_history(
            len in 1usize..100, size in 1usize..40, seed: u64, step in 1u64..=u64::MAX,
        ) {
            let plan = BatchPlan::new((0..len).collect(), size, seed).unwrap();
            let batch = plan.batch(step);
            plan.batch(1);
            prop_assert_eq!(&plan.batch(step), &batch);
            let other = BatchPlan::new((0..len).collect(), size, seed).unwrap();
            prop_assert_eq!(other.batch(step), batch);
        }
    }

    #[test]
    fn epochs_and_steps_count_from_one() {
        let plan = BatchPlan::new((0..10).collect(), 4, 7).unwrap();
        assert_eq!(plan.steps_per_epoch(), 3);
        assert_eq!([1, 3, 4, 6, 7].map(|step| plan.epoch_of(step)), [1, 1, 2, 2, 3]);
        assert_eq!([1, 2, 3, 4].map(|step| plan.batch(step).len()), [4, 4, 2, 4]);
    }

    #[test]
    fn epochs_and_seeds_differ_in_order() {
        let plan = BatchPlan::new((0..50).collect(), 8, 7).unwrap();
        assert_ne!(epoch(&plan, 1), epoch(&plan, 2));
        assert_ne!(epoch(&plan, 1), epoch(&BatchPlan::new((0..50).collect(), 8, 8).unwrap(), 1));
    }

    #[test]
    fn the_batches_never_change() {
        let plan = BatchPlan::new((0..1257).collect(), 4, 42).unwrap();
        assert_eq!(plan.batch(1), [878, 531, 413, 755]);
        assert_eq!(plan.batch(1000), [1140, 601, 114, 1221]);
    }

    #[test]
    fn a_batch_may_be_larger_than_the_set() {
        let plan = BatchPlan::new(vec![5, 9], usize::MAX, 0).unwrap();
        assert_eq!((plan.steps_per_epoch(), plan.batch(3).len()), (1, 2));
    }

    #[test]
    fn what_cannot_make_a_batch_is_refused() {
        assert!(matches!(BatchPlan::new(vec![], 4, 0), Err(DataError::NoSamples)));
        assert!(matches!(BatchPlan::new(vec![1], 0, 0), Err(DataError::BatchSize)));
    }
}
