//! Mappings of the system's, in huge pages where it has them.

#![expect(unsafe_code, reason = "calls of the system")]

use std::ptr;

/// What the lengths of mappings are multiples of: the largest page of Linux that is not a huge one.
pub const PAGE: usize = 64 << 10;
/// Where huge pages begin.
const HUGE: usize = 2 << 20;

/// Fresh pages, all zero; null if there are none. `length` is in pages.
///
/// A page fault for each 4 KiB would take as long as the layer that fills them; in pages of 2 MiB there is one for 512.
pub fn map(length: usize) -> *mut u8 {
    let Some(room) = length.checked_add(HUGE) else { return ptr::null_mut() };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, which is nobody's memory; what is not needed of it is given back, whole pages.
    unsafe {
        let begin = libc::mmap(ptr::null_mut(), room, access, kind, -1, 0);
        if begin == libc::MAP_FAILED {
            return ptr::null_mut();
        }
        let before = begin.align_offset(HUGE);
        let block = begin.byte_add(before);
        if before > 0 {
            libc::munmap(begin, before);
        }
        if before < HUGE {
            libc::munmap(block.byte_add(length), HUGE - before);
        }
        // Where the system has no huge pages, these are small ones.
        libc::madvise(block, length, libc::MADV_HUGEPAGE);
        block.cast()
    }
}

/// Gives pages back.
///
/// # Safety
/// They are of a mapping from here, and used no more.
pub unsafe fn unmap(block: *mut u8, length: usize) {
    // SAFETY: the caller's.
    unsafe { libc::munmap(block.cast(), length) };
}

/// Moves pages to where there is room for so many, without a copy; null if there is none, and the block stays as it is.
///
/// # Safety
/// As [`unmap`], if it succeeds.
pub unsafe fn resize(block: *mut u8, from: usize, to: usize) -> *mut u8 {
    // SAFETY: the caller's.
    let moved = unsafe { libc::mremap(block.cast(), from, to, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
}
