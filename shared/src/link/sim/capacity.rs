//! What one direction of a radio can carry, as a function of time.
//!
//! Everything that changes a rate (a plain number, a trace, the TDD pattern) is brought to one form:
//! stretches of constant rate. A packet then takes as long as the integral of the rate needs to reach
//! its bits, in whole-number arithmetic, so that rounding never adds up.

use super::super::{
    nr::{Air, Way},
    profile::Profile,
    trace::{Curve, Span},
};
use std::sync::Arc;

/// Nanobits in a byte: dividing by bit/s gives ns.
const NANOBITS_PER_BYTE: u128 = 8_000_000_000;

/// The rate of one direction over time.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    base: Base,
    air: Option<(Air, Way, f64)>,
    /// Nanobits served beyond the whole nanoseconds booked so far.
    carry: u128,
}

#[derive(Clone, Debug)]
enum Base {
    Unlimited,
    Constant(u64),
    Trace(Arc<Curve>),
}

impl Capacity {
    pub(super) fn new(profile: &Profile, way: Way) -> Self {
        let (direction, curve) = match way {
            Way::Uplink => (&profile.uplink, profile.trace.as_ref().map(|t| &t.uplink)),
            Way::Downlink => (&profile.downlink, profile.trace.as_ref().map(|t| &t.downlink)),
        };
        let base = match (curve, direction.rate_bps) {
            (Some(curve), _) => Base::Trace(Arc::clone(curve)),
            (None, 0) => Base::Unlimited,
            (None, rate) => Base::Constant(rate),
        };
        // Rates are long-run averages: within its slots a direction is faster.
        let air = profile.air.as_ref().map(|air| (air.clone(), way, air.duty(way)));
        Self { base, air, carry: 0 }
    }

    /// The rate at `t` ns and how long it stays so; none when it is unlimited and always open.
    pub(super) fn span(&self, t: u64) -> Option<Span> {
        let base = match &self.base {
            Base::Unlimited => None,
            Base::Constant(rate_bps) => Some(Span { rate_bps: *rate_bps, until_ns: u64::MAX }),
            Base::Trace(curve) => Some(curve.at(t)),
        };
        let Some((air, way, duty)) = &self.air else { return base };
        let (share, until_ns) = air.open(*way, t);
        let Some(base) = base else {
            // No rate to share out: open is unlimited, closed waits.
            return (share == 0.0).then_some(Span { rate_bps: 0, until_ns });
        };
        let rate_bps = (base.rate_bps as f64 * share / duty).round() as u64;
        Some(Span { rate_bps, until_ns: until_ns.min(base.until_ns) })
    }

    /// How long `bytes` take at the rate of that instant, ns; nothing if there is no rate.
    pub(super) fn airtime(&self, t: u64, bytes: u64) -> u64 {
        if bytes == 0 {
            return 0;
        }
        let rate = self.span(t).map_or(0, |span| span.rate_bps);
        let ns = (u128::from(bytes) * NANOBITS_PER_BYTE).checked_div(u128::from(rate)).unwrap_or(0);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }

    /// When `bytes` that start at `from` are through; `u64::MAX` if never. `idle`: the link stood
    /// still before `from`.
    pub(super) fn finish(&mut self, from: u64, bytes: u32, idle: bool) -> u64 {
        if idle {
            self.carry = 0;
        }
        let mut work = u128::from(bytes) * NANOBITS_PER_BYTE + self.carry;
        let mut at = from;
        loop {
            let Some(span) = self.span(at) else {
                self.carry = 0;
                return at;
            };
            let rate = u128::from(span.rate_bps);
            let room = rate * u128::from(span.until_ns.saturating_sub(at));
            if rate > 0 && work <= room {
                self.carry = work % rate;
                return at.saturating_add(u64::try_from(work / rate).unwrap_or(u64::MAX));
            }
            if span.until_ns == u64::MAX {
                return u64::MAX;
            }
            work -= room.min(work);
            at = span.until_ns;
        }
    }
}
