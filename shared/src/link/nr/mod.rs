//! 5G NR's air interface: what its slots, grants and carriers do to time and rate.
//!
//! Pure arithmetic on instants in ns: [`frame`] has slots and TDD, [`grant`] the uplink's way to its
//! first slot, [`rate`] the formula from bandwidth to bit/s.

mod frame;
mod grant;
mod rate;

pub use self::{
    frame::{Pattern, slot_ns},
    grant::Grant,
    rate::{Carrier, FrequencyRange, McsTable, mcs, resource_blocks},
};

/// A direction of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// From the edge to the cloud.
    Uplink,
    Downlink,
}

impl Way {
    pub fn reverse(self) -> Self {
        match self {
            Self::Uplink => Self::Downlink,
            Self::Downlink => Self::Uplink,
        }
    }
}

/// The air interface's timing.
#[derive(Clone, Debug, PartialEq)]
pub struct Air {
    /// µ: subcarriers are 15 kHz × 2^µ apart, slots last 1 ms / 2^µ.
    pub numerology: u8,
    /// None: frequency division, both directions are always open.
    pub pattern: Option<Pattern>,
    pub grant: Grant,
}

impl Air {
    pub fn slot_ns(&self) -> u64 {
        slot_ns(self.numerology)
    }

    /// The part of the rate that the direction has at `t` ns, 0 or 1, and until when.
    pub fn open(&self, way: Way, t: u64) -> (f64, u64) {
        match &self.pattern {
            None => (1.0, u64::MAX),
            Some(pattern) => {
                let (open, until) = pattern.open(way, self.slot_ns(), t);
                (f64::from(u8::from(open)), until)
            }
        }
    }

    /// The long-run share of time that the direction has.
    pub fn duty(&self, way: Way) -> f64 {
        self.pattern.as_ref().map_or(1.0, |pattern| pattern.duty(way))
    }

    /// The earliest instant at which an uplink that gets data at `t` may send.
    pub fn uplink_start(&self, t: u64, idle: bool) -> u64 {
        grant::uplink_start(self, t, idle)
    }
}
