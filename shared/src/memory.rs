//! How the process keeps memory that was freed.
//!
//! Activations are large, of many sizes, and live for one stage. glibc takes blocks above a threshold from
//! the system and gives them back at once, but raises the threshold to the size of whatever is freed, up
//! to 32 MiB: after the first request activations come out of its arenas, in whose gaps the next size does
//! not fit. With the threshold held down, and no more arenas than processors instead of eight times as
//! many, a node's peak is what it needs at one time.

/// Largest block that is kept for reuse, bytes: a chunk of the wire with all that is around it. Fresh pages
/// for each would take as long as sending it (`benches/wire`); those of larger blocks are lost in the
/// arithmetic on them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: i32 = 2 * crate::wire::CHUNK_BYTES as i32;

/// What may lie free at the end of an arena, bytes: the chunks that are under way at a time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE: i32 = 4 * KEPT;

/// Sets all three; called first in each node. Other systems' allocators are left as they are.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "the allocator is told by a call of C")
)]
pub fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let arenas = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: sets numbers that the allocator reads, which it allows at any time. A refusal (0)
        // changes nothing but the peak.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
            libc::mallopt(libc::M_TRIM_THRESHOLD, FREE);
            libc::mallopt(libc::M_ARENA_MAX, i32::try_from(arenas).unwrap_or(i32::MAX));
        }
    }
}
