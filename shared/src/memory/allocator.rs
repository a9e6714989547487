//! The allocator of a process.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{LARGE, kept::Kept, pages::PAGE};

/// The system's allocator, but for large blocks, which are [`Kept`]. A node's `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

/// Gives back large blocks that were not in use since before the last call.
pub fn give_back() {
    kept().give_back();
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The length in pages of a large block; none for another, or one that is longer than can be.
fn large(layout: Layout) -> Option<usize> {
    // A part of a mapping is aligned to pages only.
    let is_large = layout.size() >= LARGE && layout.align() <= PAGE;
    layout.size().checked_next_multiple_of(PAGE).filter(|_| is_large)
}

// SAFETY: large blocks are parts of mappings that overlap with no other, aligned to `PAGE`; all else is the system's
// allocator. Which of both a block is from is told by its layout, which is the same when it is freed.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match large(layout) {
            Some(length) => kept().take(length).0,
            // SAFETY: the caller's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(length) = large(layout) else {
            // SAFETY: the caller's.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let (block, fresh) = kept().take(length);
        if !fresh {
            // SAFETY: the block is this long; a kept one is not null.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's; the layout is that of `alloc`.
        unsafe {
            match large(layout) {
                Some(length) => kept().put(block, length),
                None => System.dealloc(block, layout),
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's: not zero, and not beyond `isize` with this alignment.
        unsafe {
            let wanted = Layout::from_size_align_unchecked(size, layout.align());
            match (large(layout), large(wanted)) {
                (None, None) => System.realloc(block, layout, size),
                // mremap keeps to small pages.
                (Some(from), Some(to)) if layout.align() <= 4096 => kept().resize(block, from, to),
                _ => {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes all of a block, changes its size, and looks at what is left.
    #[test]
    fn blocks_keep_their_bytes_and_their_alignment() {
        /// Bytes from one that is looked at to the next.
        const STEP: usize = 97;
        let sizes = [100, LARGE - 1, LARGE, 2 * LARGE + 12_345];
        for align in [1, 4096, 1 << 16, 1 << 21] {
            for from in sizes {
                for to in sizes {
                    let layout = Layout::from_size_align(from, align).unwrap();
                    // SAFETY: as the trait asks: layouts of this block, sizes above 0, within its bounds.
                    unsafe {
                        let block = Allocator.alloc_zeroed(layout);
                        assert_eq!(block.align_offset(align), 0);
                        let places = || (0..from).step_by(STEP);
                        assert!(places().all(|i| *block.add(i) == 0), "{from} bytes");
                        places().for_each(|i| block.add(i).write(i as u8));
                        let block = Allocator.realloc(block, layout, to);
                        assert_eq!(block.align_offset(align), 0, "{from} to {to}");
                        let mut kept = places().take_while(|i| *i < to);
                        assert!(kept.all(|i| *block.add(i) == i as u8), "{from} to {to}");
                        block.add(to - 1).write(1);
                        Allocator.dealloc(block, Layout::from_size_align(to, align).unwrap());
                    }
                }
            }
        }
        give_back();
        give_back();
    }

    #[test]
    fn too_much_is_null() {
        let layout = Layout::from_size_align(isize::MAX as usize - 4096, 1).unwrap();
        // SAFETY: nothing is done with it.
        assert!(unsafe { Allocator.alloc(layout) }.is_null());
    }
}
