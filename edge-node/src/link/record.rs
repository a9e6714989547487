//! The link's state over time.

use cleave_shared::link::{DeviceStatus, LaneCounters};

/// What the link did in one interval, both directions together with the state at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// End of the interval, s.
    pub at_s: f64,
    pub uplink: LaneSample,
    pub downlink: LaneSample,
    /// The last measured round trip, ms; not a number before the first.
    pub rtt_ms: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaneSample {
    /// Carried in the interval, headers included, Mbit/s.
    pub carried_mbps: f64,
    /// What it could carry at the end, Mbit/s; not a number if not limited.
    pub rate_mbps: f64,
    pub queue_kb: f64,
}

/// Turns totals into samples.
#[derive(Debug, Default)]
pub struct Recorder {
    samples: Vec<Sample>,
    before: Option<(f64, DeviceStatus)>,
}

/// Samples kept; when there are more, every other one is dropped, so that a recording of any length
/// fits.
const MOST: usize = 4_000;

impl Recorder {
    /// Notes the state at `at_s` seconds.
    pub fn note(&mut self, at_s: f64, status: DeviceStatus) {
        if let Some((before_s, before)) = self.before
            && at_s > before_s
        {
            let lane = |now: &LaneCounters, was: &LaneCounters, bps: Option<u64>| LaneSample {
                carried_mbps: (now.wire_bytes - was.wire_bytes) as f64 * 8e-6 / (at_s - before_s),
                rate_mbps: bps.map_or(f64::NAN, |bps| bps as f64 / 1e6),
                queue_kb: now.queue_bytes as f64 / 1e3,
            };
            let rtt_ms = if status.rtt_ns == 0 { f64::NAN } else { status.rtt_ns as f64 / 1e6 };
            self.samples.push(Sample {
                at_s,
                uplink: lane(&status.uplink, &before.uplink, status.uplink_bps),
                downlink: lane(&status.downlink, &before.downlink, status.downlink_bps),
                rtt_ms,
            });
        }
        self.before = Some((at_s, status));
        if self.samples.len() > MOST {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}
