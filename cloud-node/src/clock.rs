//! The clock that this process stamps its replies with.

use std::time::Instant;

/// Monotonic nanoseconds since the start of the process, and a number that tells this process from
/// the next one at the same address.
pub struct Clock {
    start: Instant,
    pub instance: u64,
}

impl Clock {
    pub fn start() -> Self {
        // Never 0, which a peer without the field would send.
        Self { start: Instant::now(), instance: rand::random::<u64>() | 1 }
    }

    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}
