//! Which large blocks are kept when they are freed.
//!
//! A pass of a network frees and takes the same sizes over and over, and pages that are fresh each time cost as much as a
//! good part of its arithmetic: the system fills them with zeros. What is kept must not make the peak higher, though: what
//! is in use and what is kept are never more together than the most that was in use at one time.

use super::{LARGE, pages};

/// Blocks that are kept at most.
const MOST_BLOCKS: usize = 128;

/// Large blocks: how many bytes are in use, and what is kept for reuse.
#[derive(Debug)]
pub struct Kept {
    /// Oldest first.
    blocks: [Block; MOST_BLOCKS],
    count: usize,
    /// Bytes in use, kept, and the most that both may be.
    used: usize,
    kept: usize,
    most: usize,
    /// Counts [`Kept::give_back`].
    now: u32,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    at: usize,
    length: usize,
    since: u32,
}

impl Kept {
    pub const fn new() -> Self {
        let none = Block { at: 0, length: 0, since: 0 };
        Self { blocks: [none; MOST_BLOCKS], count: 0, used: 0, kept: 0, most: 0, now: 0 }
    }

    /// A block of so many bytes, in pages, and whether it is fresh, all zero; null if there is no memory.
    pub fn take(&mut self, length: usize) -> (*mut u8, bool) {
        if let Some(block) = self.reuse(length) {
            self.used += length;
            return (block, false);
        }
        self.make_room(length);
        let block = pages::map(length);
        if !block.is_null() {
            self.used += length;
            self.most = self.most.max(self.used);
        }
        (block, true)
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It is from [`Kept::take`], and used no more.
    #[expect(unsafe_code, reason = "takes over memory")]
    pub unsafe fn put(&mut self, block: *mut u8, length: usize) {
        self.used -= length;
        self.keep(block as usize, length, self.now);
    }

    /// Makes a block of another length of one, with the same content; null if there is no memory.
    ///
    /// # Safety
    /// As [`Kept::put`], if it succeeds.
    #[expect(unsafe_code, reason = "takes over memory")]
    pub unsafe fn resize(&mut self, block: *mut u8, from: usize, to: usize) -> *mut u8 {
        self.make_room(to.saturating_sub(from));
        // SAFETY: the caller's.
        let moved = unsafe { pages::resize(block, from, to) };
        if !moved.is_null() {
            self.used = self.used - from + to;
            self.most = self.most.max(self.used);
        }
        moved
    }

    /// Gives back what has been kept since before the last call, unused. To be called now and then.
    pub fn give_back(&mut self) {
        while self.count > 0 && self.blocks[0].since != self.now {
            self.drop_oldest();
        }
        self.now = self.now.wrapping_add(1);
        self.most = self.used + self.kept;
    }

    /// The smallest block in which there is room; the rest of it stays.
    fn reuse(&mut self, length: usize) -> Option<*mut u8> {
        let fitting = (0..self.count).filter(|&i| self.blocks[i].length >= length);
        let Block { at, length: whole, since } =
            self.remove(fitting.min_by_key(|&i| self.blocks[i].length)?);
        match whole - length {
            0 => {}
            rest if rest < LARGE => Self::unmap(at + length, rest),
            rest => self.keep(at + length, rest, since),
        }
        Some(at as *mut u8)
    }

    /// So that as much again can be in use.
    fn make_room(&mut self, length: usize) {
        let allowed = self.most.max(self.used.saturating_add(length));
        while self.count > 0 && self.used.saturating_add(self.kept).saturating_add(length) > allowed
        {
            self.drop_oldest();
        }
    }

    fn keep(&mut self, at: usize, length: usize, since: u32) {
        if self.count == MOST_BLOCKS {
            self.drop_oldest();
        }
        let place = self.blocks[..self.count].iter().rposition(|block| block.since == since);
        // What is left of an older block is as old as that.
        let place = place.map_or(if since == self.now { self.count } else { 0 }, |last| last + 1);
        self.blocks.copy_within(place..self.count, place + 1);
        self.blocks[place] = Block { at, length, since };
        self.count += 1;
        self.kept += length;
    }

    fn drop_oldest(&mut self) {
        let Block { at, length, .. } = self.remove(0);
        Self::unmap(at, length);
    }

    fn remove(&mut self, place: usize) -> Block {
        let block = self.blocks[place];
        self.blocks.copy_within(place + 1..self.count, place);
        self.count -= 1;
        self.kept -= block.length;
        block
    }

    #[expect(unsafe_code, reason = "gives memory back")]
    fn unmap(at: usize, length: usize) {
        // SAFETY: a kept block is nobody's.
        unsafe { pages::unmap(at as *mut u8, length) };
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "blocks are raw memory")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_was_freed_comes_again_and_the_rest_of_it_too() {
        let mut kept = Kept::new();
        let (block, fresh) = kept.take(8 * MIB);
        assert!(fresh && !block.is_null());
        // SAFETY: it was taken, and is used no more.
        unsafe { kept.put(block, 8 * MIB) };
        assert_eq!(kept.take(3 * MIB), (block, false));
        let rest = kept.take(5 * MIB);
        assert_eq!((rest.0 as usize, rest.1), (block as usize + 3 * MIB, false));
        let (other, fresh) = kept.take(3 * MIB);
        assert!(fresh);
        // SAFETY: as above.
        unsafe {
            kept.put(block, 3 * MIB);
            kept.put(rest.0, 5 * MIB);
            kept.put(other, 3 * MIB);
        }
        assert_eq!((kept.used, kept.kept), (0, 11 * MIB));
    }

    #[test]
    fn what_nobody_needs_is_given_back_after_a_while() {
        let mut kept = Kept::new();
        let blocks = [4, 2].map(|mib| (kept.take(mib * MIB).0, mib * MIB));
        // SAFETY: they were taken, and are used no more.
        blocks.iter().for_each(|&(block, length)| unsafe { kept.put(block, length) });
        kept.give_back();
        assert_eq!(kept.kept, 6 * MIB);
        // In use now and then.
        let (block, fresh) = kept.take(2 * MIB);
        assert!(!fresh);
        // SAFETY: as above.
        unsafe { kept.put(block, 2 * MIB) };
        kept.give_back();
        assert_eq!(kept.kept, 2 * MIB);
        kept.give_back();
        assert_eq!((kept.kept, kept.count, kept.most), (0, 0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        /// Blocks keep what is written to them, whatever else comes and goes, and the peak is that of what is in use.
        #[test]
        fn blocks_are_apart_and_the_peak_is_not_higher(
            steps in prop::collection::vec((any::<bool>(), 32usize..160, 0usize..8), 1..120),
        ) {
            let (mut kept, mut blocks, mut peak) = (Kept::new(), Vec::<(*mut u8, usize, u8)>::new(), 0);
            for (number, (taken, pages, which)) in steps.into_iter().enumerate() {
                let mark = number as u8;
                if taken || blocks.is_empty() {
                    let length = pages * pages::PAGE;
                    let (block, _) = kept.take(length);
                    prop_assert!(!block.is_null());
                    // SAFETY: the block is ours, and this long.
                    [0, length - 1].iter().for_each(|&at| unsafe { block.add(at).write(mark) });
                    blocks.push((block, length, mark));
                } else {
                    let (block, length, mark) = blocks.swap_remove(which % blocks.len());
                    // SAFETY: as above; then it is used no more.
                    unsafe {
                        prop_assert_eq!([0, length - 1].map(|at| *block.add(at)), [mark; 2]);
                        kept.put(block, length);
                    }
                }
                if which == 7 {
                    kept.give_back();
                }
                let used: usize = blocks.iter().map(|block| block.1).sum();
                peak = peak.max(used);
                prop_assert_eq!(kept.used, used);
                prop_assert!(kept.used + kept.kept <= peak);
                let listed: usize = kept.blocks[..kept.count].iter().map(|block| block.length).sum();
                prop_assert_eq!(kept.kept, listed);
            }
        }
    }
}
