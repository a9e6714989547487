//! How an uplink gets its first slot.
//!
//! A device with nothing under way must ask: it waits for its scheduling-request occasion (TS 38.321
//! clause 5.4.4, the period is TS 38.331's `periodicityAndOffset`), the base station schedules, and the
//! data leaves k2 slots after the grant (TS 38.214 clause 6.1.2.1). With a configured grant (TS 38.321
//! clause 5.8.2, type 1) it owns recurring slots and just waits for the next one.

use super::{Air, Way};

/// The rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    Request {
        /// Slots between two occasions to ask.
        period_slots: u32,
        /// From the request to the grant: reception, scheduling, PDCCH.
        processing_slots: u32,
        /// From the grant to the data (k2).
        data_slots: u32,
    },
    Configured {
        /// Slots between two own transmissions.
        period_slots: u32,
    },
}

/// Slots to look for an open one before giving up on the pattern: more than any pattern has.
const SEARCH: u64 = 200;

/// The earliest instant at which an uplink that has data at `t` may send. `idle`: it had none before;
/// otherwise its buffer report came with earlier data.
pub(super) fn uplink_start(air: &Air, t: u64, idle: bool) -> u64 {
    if !idle {
        return t;
    }
    match air.grant {
        Grant::Request { period_slots, processing_slots, data_slots } => {
            let asked = occasion(air, t, u64::from(period_slots.max(1)));
            let wait = u64::from(processing_slots) + u64::from(data_slots);
            begin(air, uplink_slot(air, asked.saturating_add(wait)))
        }
        Grant::Configured { period_slots } => {
            begin(air, occasion(air, t, u64::from(period_slots.max(1))))
        }
    }
}

/// The first slot from `t` on that begins a period, or the uplink slot next to it.
fn occasion(air: &Air, t: u64, period: u64) -> u64 {
    let next = t.div_ceil(air.slot_ns());
    uplink_slot(air, next.div_ceil(period).saturating_mul(period))
}

/// That slot, or the next one that has uplink symbols.
fn uplink_slot(air: &Air, slot: u64) -> u64 {
    let Some(pattern) = &air.pattern else { return slot };
    (slot..slot.saturating_add(SEARCH)).find(|s| pattern.serves(*s, Way::Uplink)).unwrap_or(slot)
}

fn begin(air: &Air, slot: u64) -> u64 {
    slot.saturating_mul(air.slot_ns())
}

#[cfg(test)]
mod tests {
    use super::{super::Pattern, *};

    const SLOT: u64 = 500_000;

    fn air(grant: Grant) -> Air {
        let pattern = Pattern::parse("DDDSU", [10, 2, 2]).expect("valid");
        Air { numerology: 1, pattern: Some(pattern), grant }
    }

    #[test]
    fn a_request_waits_for_its_occasion_its_grant_and_an_uplink_slot() {
        let request = Grant::Request { period_slots: 10, processing_slots: 4, data_slots: 4 };
        let air = air(request);
        // Data at slot 0.1: occasion at slot 10, moved to the special slot 13; grant and k2 to 21,
        // which is downlink; slot 23 is special again.
        assert_eq!(air.uplink_start(SLOT / 10, true), 23 * SLOT);
        assert_eq!(air.uplink_start(SLOT / 10, false), SLOT / 10, "no need to ask");
    }

    #[test]
    fn a_configured_grant_is_sooner() {
        let air = air(Grant::Configured { period_slots: 5 });
        assert_eq!(air.uplink_start(0, true), 3 * SLOT);
        assert_eq!(air.uplink_start(1, true), 8 * SLOT);
        let fdd = Air { pattern: None, ..air };
        assert_eq!(fdd.uplink_start(1, true), 5 * SLOT);
    }
}
