//! Slots and who may use them: numerology and the TDD pattern.
//!
//! A slot of 14 symbols lasts 1 ms / 2^µ (TS 38.211 clauses 4.3.2, 4.2). In TDD a pattern of slots repeats
//! (TS 38.213 clause 11.1, `tdd-UL-DL-ConfigurationCommon`): D is downlink, U uplink, S special, which
//! begins with downlink symbols, ends with uplink symbols, and has a guard period between.

use super::Way;

/// Symbols of a slot with normal cyclic prefix (TS 38.211 table 4.3.2-1).
pub const SYMBOLS: u32 = 14;
const MS: u64 = 1_000_000;

/// One slot of the pattern: symbols at its beginning for the downlink, at its end for the uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    downlink: u32,
    uplink: u32,
}

/// A TDD pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    slots: Vec<Slot>,
}

impl Pattern {
    /// Reads `DDDSU`; `special` are the S slot's downlink, guard and uplink symbols, 14 together.
    pub fn parse(text: &str, special: [u32; 3]) -> Result<Self, String> {
        if special.iter().sum::<u32>() != SYMBOLS {
            return Err(format!(
                "the special slot's symbols {special:?} are not {SYMBOLS} together"
            ));
        }
        let slot = |letter| match letter {
            'D' => Ok(Slot { downlink: SYMBOLS, uplink: 0 }),
            'U' => Ok(Slot { downlink: 0, uplink: SYMBOLS }),
            'S' => Ok(Slot { downlink: special[0], uplink: special[2] }),
            other => Err(format!("{other:?} in {text:?} is no slot; allowed: D, S, U")),
        };
        let slots = text.chars().map(slot).collect::<Result<Vec<Slot>, String>>()?;
        if slots.len() > 80 {
            return Err(format!("{} slots; allowed: at most 80", slots.len()));
        }
        for (name, symbols) in
            [("downlink", |s: &Slot| s.downlink), ("uplink", |s: &Slot| s.uplink)]
                as [(&str, fn(&Slot) -> u32); 2]
        {
            if slots.iter().map(symbols).sum::<u32>() == 0 {
                return Err(format!(
                    "{text:?} has no {name} slot, so nothing could be sent that way"
                ));
            }
        }
        Ok(Self { slots })
    }

    fn slot(&self, index: u64) -> Slot {
        self.slots[(index % self.slots.len() as u64) as usize]
    }

    /// Whether that slot has symbols for the direction.
    pub(super) fn serves(&self, index: u64, way: Way) -> bool {
        symbols(self.slot(index), way) > 0
    }

    /// The part of all symbols that the direction has.
    pub(super) fn duty(&self, way: Way) -> f64 {
        let own: u32 = self.slots.iter().map(|slot| symbols(*slot, way)).sum();
        f64::from(own) / f64::from(SYMBOLS * self.slots.len() as u32)
    }

    /// Whether the direction is open at `t`, and until when that stays so (at most a slot).
    pub(super) fn open(&self, way: Way, slot_ns: u64, t: u64) -> (bool, u64) {
        let (index, within) = (t / slot_ns, t % slot_ns);
        let begin = t - within;
        let slot = self.slot(index);
        let edge = |symbols: u32| slot_ns * u64::from(symbols) / u64::from(SYMBOLS);
        let (opens, closes) = match way {
            Way::Downlink => (0, edge(slot.downlink)),
            Way::Uplink => (edge(SYMBOLS - slot.uplink), if slot.uplink > 0 { slot_ns } else { 0 }),
        };
        let ends = |offset: u64| begin.saturating_add(offset);
        if closes <= opens || within >= closes {
            (false, ends(slot_ns))
        } else if within < opens {
            (false, ends(opens))
        } else {
            (true, ends(closes))
        }
    }
}

fn symbols(slot: Slot, way: Way) -> u32 {
    match way {
        Way::Downlink => slot.downlink,
        Way::Uplink => slot.uplink,
    }
}

/// Length of a slot, ns.
pub fn slot_ns(numerology: u8) -> u64 {
    MS >> numerology.min(6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_opens_each_way_in_its_symbols() {
        let pattern = Pattern::parse("DDDSU", [10, 2, 2]).expect("valid");
        let slot = slot_ns(1);
        assert_eq!(slot, 500_000);
        assert_eq!(pattern.open(Way::Downlink, slot, 0), (true, slot));
        assert_eq!(pattern.open(Way::Uplink, slot, 10), (false, slot));
        // The special slot: 10 symbols down, 2 guard, 2 up.
        let special = 3 * slot;
        assert_eq!(pattern.open(Way::Downlink, slot, special), (true, special + slot * 10 / 14));
        assert_eq!(pattern.open(Way::Uplink, slot, special), (false, special + slot * 12 / 14));
        assert_eq!(
            pattern.open(Way::Uplink, slot, special + slot * 12 / 14),
            (true, special + slot)
        );
        assert_eq!(pattern.open(Way::Downlink, slot, 4 * slot), (false, 5 * slot));
        assert!((pattern.duty(Way::Downlink) - 52.0 / 70.0).abs() < 1e-12);
        assert!((pattern.duty(Way::Uplink) - 16.0 / 70.0).abs() < 1e-12);
        assert!(pattern.open(Way::Uplink, slot, u64::MAX).1 == u64::MAX);
    }

    #[test]
    fn a_pattern_that_serves_one_way_only_is_refused() {
        for (text, problem) in
            [("DDD", "uplink"), ("UU", "downlink"), ("", "downlink"), ("DXU", "'X'")]
        {
            let error = Pattern::parse(text, [10, 2, 2]).expect_err(text);
            assert!(error.contains(problem), "{error}");
        }
        assert!(Pattern::parse("DSU", [10, 2, 3]).is_err());
    }
}
