//! What a network is like, as plain data.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Slowest and fastest rate accepted, bit/s (0, unlimited, is accepted as well).
const RATE_BPS: RangeInclusive<u64> = 10_000..=100_000_000_000;
/// Longest one-way delay accepted, ms.
const MAX_DELAY_MS: f64 = 10_000.0;
/// Smallest in-flight queue of a connection, bytes.
const MIN_QUEUE_BYTES: usize = 256 * 1024;
/// Largest in-flight queue of a connection, bytes.
const MAX_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How long a queue should keep the link busy while its owner is scheduled out, ms.
const QUEUE_SLACK_MS: f64 = 5.0;

/// One direction of a network on its own, because up and down differ by an order
/// of magnitude on real radios and a split point is chosen by exactly that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// Serialisation rate, bit/s; 0 is unlimited.
    pub rate_bps: u64,
    /// Mean one-way propagation delay, ms.
    pub delay_ms: f64,
    /// Standard deviation of the delay, ms: a normal distribution cut off on both
    /// sides at `min(3 * jitter_ms, delay_ms)`, so its mean stays `delay_ms`.
    pub jitter_ms: f64,
}

impl Direction {
    /// A direction that does nothing to its bytes.
    const IDEAL: Self = Self { rate_bps: 0, delay_ms: 0.0, jitter_ms: 0.0 };

    fn is_ideal(&self) -> bool {
        *self == Self::IDEAL
    }

    fn validate(&self, name: &str) -> Result<(), String> {
        if self.rate_bps != 0 && !RATE_BPS.contains(&self.rate_bps) {
            let (low, high) = (RATE_BPS.start(), RATE_BPS.end());
            return Err(format!(
                "{name}.rate_bps is {}; allowed: 0 (unlimited) or {low} to {high} bit/s",
                self.rate_bps
            ));
        }
        if !(0.0..=MAX_DELAY_MS).contains(&self.delay_ms) {
            return Err(format!(
                "{name}.delay_ms is {}; allowed: 0 to {MAX_DELAY_MS} ms",
                self.delay_ms
            ));
        }
        if !(0.0..=self.delay_ms).contains(&self.jitter_ms) {
            return Err(format!(
                "{name}.jitter_ms is {}; allowed: 0 to {name}.delay_ms ({} ms)",
                self.jitter_ms, self.delay_ms
            ));
        }
        Ok(())
    }

    /// Bytes one connection may have in flight: twice rate × delay (with room for
    /// jitter and a late wake-up), so that the link is filled, and at least 256 KiB.
    pub(super) fn queue_bytes(&self) -> usize {
        let held_ms = self.delay_ms + 3.0 * self.jitter_ms + QUEUE_SLACK_MS;
        let bytes = 2.0 * self.rate_bps as f64 / 8.0 * held_ms / 1e3;
        (bytes as usize).clamp(MIN_QUEUE_BYTES, MAX_QUEUE_BYTES)
    }
}

/// A named network, so that an experiment can say which one it ran on and a
/// reader can look up where its numbers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Short name, as given on a command line.
    pub name: String,
    /// Edge to cloud.
    pub uplink: Direction,
    /// Cloud to edge.
    pub downlink: Direction,
    /// Where the numbers come from, in words.
    pub source: String,
}

impl Profile {
    /// The names [`Profile::builtin`] knows.
    pub const NAMES: [&str; 5] = ["5g-midband", "5g-mmwave", "lte", "wifi", "none"];

    /// The built-in profile of that name.
    ///
    /// The numbers are round ones, of the order of magnitude that the cited work
    /// reports; they describe no operator, place or measurement in particular.
    pub fn builtin(name: &str) -> Option<Profile> {
        // Columns: (Mbit/s, one-way ms, jitter ms) up, then down.
        let (up, down, source) = match name {
            "5g-midband" => ((60, 10.0, 2.0), (400, 10.0, 2.0), MIDBAND),
            "5g-mmwave" => ((150, 6.0, 1.0), (1_500, 6.0, 1.0), MMWAVE),
            "lte" => ((15, 25.0, 4.0), (50, 25.0, 4.0), LTE),
            "wifi" => ((300, 3.0, 0.5), (300, 3.0, 0.5), WIFI),
            "none" => ((0, 0.0, 0.0), (0, 0.0, 0.0), NONE),
            _ => return None,
        };
        let direction = |(mbps, delay_ms, jitter_ms): (u64, f64, f64)| Direction {
            rate_bps: mbps * 1_000_000,
            delay_ms,
            jitter_ms,
        };
        Some(Profile {
            name: name.to_owned(),
            uplink: direction(up),
            downlink: direction(down),
            source: source.to_owned(),
        })
    }

    /// Mean round trip of a single byte, ms, without its serialisation.
    pub fn rtt_ms(&self) -> f64 {
        self.uplink.delay_ms + self.downlink.delay_ms
    }

    /// Says which field is out of range, and what the range is.
    pub fn validate(&self) -> Result<(), String> {
        if self.name.trim().is_empty() {
            return Err("name is empty; allowed: any non-blank text".to_owned());
        }
        self.uplink.validate("uplink")?;
        self.downlink.validate("downlink")
    }

    /// Whether the link would do nothing at all, so that it can be left out.
    pub fn is_ideal(&self) -> bool {
        self.uplink.is_ideal() && self.downlink.is_ideal()
    }
}

const MIDBAND: &str = "Order of magnitude for a good signal on a 100 MHz TDD carrier in 3GPP \
    band n78 (TS 38.104), whose slot pattern favours the downlink. Published averages, which \
    include weak signal and load, are lower: Ookla's global 5G medians for Q3 2021 are 166 \
    Mbit/s down and 21 up; Opensignal's US C-Band averages of 2022 are 160-226 down and about \
    20 up. Not a measurement of any one network.";
const MMWAVE: &str = "Order of magnitude from Narayanan et al., 'A Variegated Look at 5G in \
    the Wild: Performance, Power, and QoE Implications', ACM SIGCOMM 2021 (mmWave 5G, line of \
    sight, near-by server); rounded, below the peaks. Not a measurement of any one network.";
const LTE: &str = "Order of magnitude for a good 4G/LTE signal; compare the 4G baselines in \
    Narayanan et al., ACM SIGCOMM 2021, and Ookla's US medians over all mobile technologies \
    for Q3 2022 (68 Mbit/s down, 9 up). Not a measurement of any one network.";
const WIFI: &str = "Order of magnitude for IEEE 802.11ac, 80 MHz, two streams: 866.7 Mbit/s on \
    the air, of which about a third is taken as TCP goodput, plus a few ms of contention and \
    wired path. Not a measurement of any one network.";
const NONE: &str = "No link: bytes pass straight through to the socket.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtins_are_valid_and_cite_a_source() {
        for name in Profile::NAMES {
            let profile = Profile::builtin(name).expect("a listed name is built in");
            assert_eq!(profile.name, name);
            assert_eq!(profile.validate(), Ok(()));
            assert!(!profile.source.is_empty());
            assert_eq!(profile.is_ideal(), name == "none");
        }
        assert_eq!(Profile::builtin("6g"), None);
    }

    #[test]
    fn a_bad_field_is_named_with_its_range() {
        let lte = Profile::builtin("lte").expect("built in");
        let broken = |change: fn(&mut Profile)| {
            let mut profile = lte.clone();
            change(&mut profile);
            profile.validate().expect_err("out of range")
        };
        assert!(broken(|p| p.name.clear()).contains("name"));
        assert!(broken(|p| p.uplink.rate_bps = 1).contains("uplink.rate_bps is 1; allowed: 0"));
        let nan = broken(|p| p.downlink.delay_ms = f64::NAN);
        assert_eq!(nan, "downlink.delay_ms is NaN; allowed: 0 to 10000 ms");
        assert!(broken(|p| p.uplink.delay_ms = -1.0).contains("uplink.delay_ms"));
        assert!(broken(|p| p.uplink.jitter_ms = 26.0).contains("uplink.jitter_ms is 26"));
        assert!(broken(|p| p.uplink.jitter_ms = f64::INFINITY).contains("jitter_ms is inf"));
    }

    #[test]
    fn queues_hold_at_least_twice_rate_times_delay() {
        let mmwave = Profile::builtin("5g-mmwave").expect("built in").downlink;
        assert!(mmwave.queue_bytes() >= 2 * 1_500_000_000 / 8 * 6 / 1_000);
        assert_eq!(Direction::IDEAL.queue_bytes(), MIN_QUEUE_BYTES);
    }
}
