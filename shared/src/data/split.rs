//! Which samples are for training and which are kept aside, decided once by a seed.
//!
//! Both nodes, every resumed run and every evaluation must agree on the parts, or a model would be
//! measured on what it was trained on. So the split is a function of the length and the seed.

use super::shuffle::shuffle;

/// What a sample is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Gradients come from these.
    Train,
    /// Watched during training.
    Validation,
    /// Measured once, at the end.
    Test,
}

impl Part {
    /// `train`, `validation` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Train => "train",
            Part::Validation => "validation",
            Part::Test => "test",
        }
    }
}

/// The samples `0..len`, shuffled and cut in three: 70 % training, 10 % validation, 20 % test.
///
/// Test and validation are rounded up, training is the rest; from three samples on none is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    order: Vec<usize>,
    /// Where validation starts in `order`, and where test does.
    validation: usize,
    test: usize,
}

impl Split {
    pub fn new(len: usize, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..len).collect();
        shuffle(&mut order, b"cleave:split:v1\0", seed, 0);
        let test = len - len.div_ceil(5);
        let validation = test.saturating_sub(len.div_ceil(10));
        Self { order, validation, test }
    }

    /// Samples that lie in the order of their parts already.
    pub fn in_order(train: usize, validation: usize, test: usize) -> Self {
        let len = train + validation + test;
        Self { order: (0..len).collect(), validation: train, test: train + validation }
    }

    pub fn indices(&self, part: Part) -> &[usize] {
        match part {
            Part::Train => &self.order[..self.validation],
            Part::Validation => &self.order[self.validation..self.test],
            Part::Test => &self.order[self.test..],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTS: [Part; 3] = [Part::Train, Part::Validation, Part::Test];

    proptest! {
        #[test]
        fn every_sample_is_in_one_part(len in 0usize..500, seed: u64) {
            let split = Split::new(len, seed);
            let mut all = PARTS.map(|part| split.indices(part)).concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..len).collect::<Vec<_>>());
            prop_assert!(len < 3 || PARTS.iter().all(|&part| !split.indices(part).is_empty()));
            prop_assert_eq!(&split, &Split::new(len, seed));
        }
    }

    #[test]
    fn sizes_of_the_digits() {
        let split = Split::new(1797, 1);
        assert_eq!(PARTS.map(|part| split.indices(part).len()), [1257, 180, 360]);
        assert_ne!(split, Split::new(1797, 2));
    }

    #[test]
    fn the_split_never_changes() {
        let split = Split::new(1797, 42);
        assert_eq!(PARTS.map(|part| split.indices(part)[0]), [917, 1037, 1529]);
    }
}
