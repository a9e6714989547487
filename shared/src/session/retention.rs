//! Which checkpoints a node can do without.

use std::collections::BTreeSet;

/// Steps of `own` to remove: those older than the newest `keep` that the peer holds too. While the peer
/// cannot write, nothing is removed that both might still need.
pub fn outdated(own: &BTreeSet<u64>, peer: &BTreeSet<u64>, keep: usize) -> Vec<u64> {
    let common = own.iter().rev().filter(|step| peer.contains(step));
    let oldest_kept = common.copied().nth(keep.saturating_sub(1));
    let Some(oldest_kept) = oldest_kept else { return Vec::new() };
    own.range(..oldest_kept).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(of: &[u64]) -> BTreeSet<u64> {
        of.iter().copied().collect()
    }

    #[test]
    fn what_both_hold_is_kept() {
        let own = steps(&[10, 20, 30, 40]);
        assert_eq!(outdated(&own, &own, 2), [10, 20]);
        assert_eq!(outdated(&own, &steps(&[10, 20]), 2), [] as [u64; 0]);
        assert_eq!(outdated(&own, &steps(&[10, 20]), 1), [10]);
        assert_eq!(outdated(&own, &steps(&[]), 2), [] as [u64; 0]);
        assert_eq!(outdated(&own, &steps(&[20, 40, 50]), 2), [10]);
    }
}
