//! What went over the link.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes a link has carried, so that an experiment can report its traffic
/// without trusting the payload sizes of the layers above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes accepted from writers (some may still be in flight).
    pub uplink_bytes: u64,
    /// Bytes handed to readers.
    pub downlink_bytes: u64,
    /// Connections ever made through the link.
    pub connections: u64,
}

/// The running totals behind [`LinkCounters`], shared by all streams of a link.
#[derive(Debug, Default)]
pub(super) struct Meter {
    uplink: AtomicU64,
    downlink: AtomicU64,
    connections: AtomicU64,
}

impl Meter {
    pub(super) fn count_uplink(&self, bytes: usize) {
        self.uplink.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_downlink(&self, bytes: usize) {
        self.downlink.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// The totals now; each is exact, but they are not read in one instant.
    pub(super) fn snapshot(&self) -> LinkCounters {
        LinkCounters {
            uplink_bytes: self.uplink.load(Ordering::Relaxed),
            downlink_bytes: self.downlink.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }
}
