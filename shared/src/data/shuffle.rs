//! Shuffling whose result is part of the contract: the same seed gives the same order for ever.
//!
//! `rand` may change how it draws a range or shuffles a slice with any minor version. ChaCha8 is
//! fixed by its definition, and everything from its words to the order is written out here.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Shuffles by the stream of (`purpose`, `seed`, `epoch`); different purposes are unrelated.
pub fn shuffle(items: &mut [usize], purpose: &[u8; 16], seed: u64, epoch: u64) {
    let mut rng = stream(purpose, seed, epoch);
    // Fisher and Yates, from the back.
    for i in (1..items.len()).rev() {
        items.swap(i, below(&mut rng, i as u64 + 1) as usize);
    }
}

/// The random words of (`purpose`, `seed`, `epoch`).
pub fn stream(purpose: &[u8; 16], seed: u64, epoch: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&epoch.to_le_bytes());
    key[16..].copy_from_slice(purpose);
    ChaCha8Rng::from_seed(key)
}

/// A uniform number in `0..bound`.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    // 2^64 mod bound: without the first so many values, every remainder is equally frequent.
    let skipped = bound.wrapping_neg() % bound;
    loop {
        let word = rng.next_u64();
        if word >= skipped {
            return word % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shuffled(purpose: &[u8; 16], seed: u64, epoch: u64) -> Vec<usize> {
        let mut items: Vec<usize> = (0..20).collect();
        shuffle(&mut items, purpose, seed, epoch);
        items
    }

    #[test]
    fn every_part_of_the_key_changes_the_order() {
        let order = shuffled(b"test: purpose 01", 1, 2);
        assert_eq!(order, shuffled(b"test: purpose 01", 1, 2));
        assert_ne!(order, shuffled(b"test: purpose 02", 1, 2));
        assert_ne!(order, shuffled(b"test: purpose 01", 2, 2));
        assert_ne!(order, shuffled(b"test: purpose 01", 1, 3));
        assert_ne!(order, shuffled(b"test: purpose 01", 2, 1));
    }

    #[test]
    fn the_order_never_changes() {
        // Computed by a ChaCha8 and a shuffle written apart from this one, in Python.
        assert_eq!(
            shuffled(b"test: purpose 01", 42, 1),
            [18, 2, 17, 12, 8, 14, 7, 13, 5, 11, 9, 16, 19, 0, 6, 10, 3, 15, 4, 1]
        );
    }

    #[test]
    fn every_order_is_as_frequent() {
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, b"test: purpose 01", seed, 0);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (850..1150).contains(n)), "{counts:?}");
    }
}
