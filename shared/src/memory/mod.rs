//! How the process keeps memory that was freed.
//!
//! Activations are large, of many sizes, and live for one stage. glibc takes blocks above a threshold from
//! the system and gives them back at once, but raises the threshold to the size of whatever is freed, up
//! to 32 MiB: after the first request activations come out of its arenas, in whose gaps the next size does
//! not fit. With the threshold held down, and no more arenas than processors instead of eight times as
//! many, a node's peak is what it needs at one time. Blocks above the threshold are [`Allocator`]'s.

#[cfg(target_os = "linux")]
mod allocator;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(target_os = "linux")]
mod pages;

use std::time::Duration;

#[cfg(target_os = "linux")]
pub use self::allocator::{Allocator, give_back};
/// Elsewhere all is the system's.
#[cfg(not(target_os = "linux"))]
pub use std::alloc::System as Allocator;

/// Blocks of so many bytes are taken from the system; smaller ones are for its allocator to keep, among them a chunk of the
/// wire with all that is around it.
const LARGE: usize = 2 << 20;
/// How long a large block is kept that nobody needs, at least; and at most twice as long.
const IDLE: Duration = Duration::from_secs(1);

/// Gives back, for the life of the process, what was needed for requests that have passed.
pub async fn give_back_when_idle() {
    loop {
        tokio::time::sleep(IDLE).await;
        give_back();
    }
}

/// Nothing is kept.
#[cfg(not(target_os = "linux"))]
pub fn give_back() {}

/// What may lie free at the end of an arena, bytes: the chunks that are under way at a time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FREE: i32 = 4 * LARGE as i32;

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
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE as i32);
            libc::mallopt(libc::M_TRIM_THRESHOLD, FREE);
            libc::mallopt(libc::M_ARENA_MAX, i32::try_from(arenas).unwrap_or(i32::MAX));
        }
    }
}
