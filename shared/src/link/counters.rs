//! What went over the link.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sim::LaneCounters;

/// What a link has carried, so that an experiment can report its traffic without trusting the payload
/// sizes of the layers above.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkCounters {
    pub uplink: LaneCounters,
    pub downlink: LaneCounters,
    /// Connections ever made through the link.
    pub connections: u64,
}

/// The totals of connections on an ideal network, which the simulation does not see.
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

    /// The totals now, those of the simulation included; each is exact, but they are not read in one
    /// instant.
    pub(super) fn counters(
        &self,
        mut uplink: LaneCounters,
        mut downlink: LaneCounters,
    ) -> LinkCounters {
        for (lane, direct) in [(&mut uplink, &self.uplink), (&mut downlink, &self.downlink)] {
            let bytes = direct.load(Ordering::Relaxed);
            lane.accepted_bytes += bytes;
            lane.delivered_bytes += bytes;
        }
        LinkCounters { uplink, downlink, connections: self.connections.load(Ordering::Relaxed) }
    }
}
