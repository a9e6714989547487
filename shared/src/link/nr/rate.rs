//! From a carrier's parameters to its peak rate: TS 38.306 clause 4.1.2.
//!
//! rate = layers × Qm × f × R × (N_PRB × 12 / T_symbol) × (1 − overhead), for one carrier, with
//! T_symbol = 1 ms / (14 × 2^µ). TDD's share of time is not in the formula; it is multiplied on.

use super::{Way, frame::SYMBOLS};

/// FR1 is below 7.125 GHz, FR2 is mmWave (TS 38.104 clause 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrequencyRange {
    Fr1,
    Fr2,
}

/// The modulation and coding table in use (TS 38.214 tables 5.1.3.1-1 and 5.1.3.1-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McsTable {
    Qam64,
    Qam256,
}

/// One carrier in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carrier {
    pub bandwidth_mhz: u32,
    pub numerology: u8,
    pub range: FrequencyRange,
    pub layers: u32,
    /// Qm, bits a symbol: 2, 4, 6, 8.
    pub modulation_order: u32,
    /// R, at most 948/1024.
    pub code_rate: f64,
}

impl Carrier {
    /// The peak rate without TDD's share, bit/s; none if TS 38.101 has no such carrier.
    pub fn peak_bps(&self, way: Way) -> Option<f64> {
        let blocks = resource_blocks(self.range, self.numerology, self.bandwidth_mhz)?;
        let symbols_per_second = f64::from(SYMBOLS) * 1e3 * f64::from(1u32 << self.numerology);
        let subcarriers = f64::from(blocks) * 12.0;
        let bits = f64::from(self.layers) * f64::from(self.modulation_order) * self.code_rate;
        Some(bits * subcarriers * symbols_per_second * (1.0 - overhead(self.range, way)))
    }
}

/// Control and reference signals (TS 38.306 clause 4.1.2).
fn overhead(range: FrequencyRange, way: Way) -> f64 {
    match (range, way) {
        (FrequencyRange::Fr1, Way::Downlink) => 0.14,
        (FrequencyRange::Fr2, Way::Downlink) => 0.18,
        (FrequencyRange::Fr1, Way::Uplink) => 0.08,
        (FrequencyRange::Fr2, Way::Uplink) => 0.10,
    }
}

/// N_RB: TS 38.101-1 table 5.3.2-1 (FR1) and TS 38.101-2 table 5.3.2-1 (FR2); none where the tables
/// have no entry.
pub fn resource_blocks(range: FrequencyRange, numerology: u8, bandwidth_mhz: u32) -> Option<u32> {
    let table: &[(u32, u32)] = match (range, numerology) {
        (FrequencyRange::Fr1, 0) => {
            &[(5, 25), (10, 52), (15, 79), (20, 106), (25, 133), (30, 160), (40, 216), (50, 270)]
        }
        (FrequencyRange::Fr1, 1) => &[
            (5, 11),
            (10, 24),
            (15, 38),
            (20, 51),
            (25, 65),
            (30, 78),
            (40, 106),
            (50, 133),
            (60, 162),
            (70, 189),
            (80, 217),
            (90, 245),
            (100, 273),
        ],
        (FrequencyRange::Fr1, 2) => &[
            (10, 11),
            (15, 18),
            (20, 24),
            (25, 31),
            (30, 38),
            (40, 51),
            (50, 65),
            (60, 79),
            (70, 93),
            (80, 107),
            (90, 121),
            (100, 135),
        ],
        (FrequencyRange::Fr2, 2) => &[(50, 66), (100, 132), (200, 264)],
        (FrequencyRange::Fr2, 3) => &[(50, 32), (100, 66), (200, 132), (400, 264)],
        _ => &[],
    };
    table.iter().find(|(mhz, _)| *mhz == bandwidth_mhz).map(|(_, blocks)| *blocks)
}

/// TS 38.214 table 5.1.3.1-1: modulation order and code rate × 1024.
const QAM64: [(u32, f64); 29] = [
    (2, 120.0),
    (2, 157.0),
    (2, 193.0),
    (2, 251.0),
    (2, 308.0),
    (2, 379.0),
    (2, 449.0),
    (2, 526.0),
    (2, 602.0),
    (2, 679.0),
    (4, 340.0),
    (4, 378.0),
    (4, 434.0),
    (4, 490.0),
    (4, 553.0),
    (4, 616.0),
    (4, 658.0),
    (6, 438.0),
    (6, 466.0),
    (6, 517.0),
    (6, 567.0),
    (6, 616.0),
    (6, 666.0),
    (6, 719.0),
    (6, 772.0),
    (6, 822.0),
    (6, 873.0),
    (6, 910.0),
    (6, 948.0),
];

/// TS 38.214 table 5.1.3.1-2.
const QAM256: [(u32, f64); 28] = [
    (2, 120.0),
    (2, 193.0),
    (2, 308.0),
    (2, 449.0),
    (2, 602.0),
    (4, 378.0),
    (4, 434.0),
    (4, 490.0),
    (4, 553.0),
    (4, 616.0),
    (4, 658.0),
    (6, 466.0),
    (6, 517.0),
    (6, 567.0),
    (6, 616.0),
    (6, 666.0),
    (6, 719.0),
    (6, 772.0),
    (6, 822.0),
    (6, 873.0),
    (8, 682.5),
    (8, 711.0),
    (8, 754.0),
    (8, 797.0),
    (8, 841.0),
    (8, 885.0),
    (8, 916.5),
    (8, 948.0),
];

/// Modulation order and code rate of an MCS index; none beyond the table.
pub fn mcs(table: McsTable, index: usize) -> Option<(u32, f64)> {
    let row = match table {
        McsTable::Qam64 => QAM64.get(index),
        McsTable::Qam256 => QAM256.get(index),
    };
    row.map(|(order, rate)| (*order, rate / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 MHz, 30 kHz, 4 layers, 256QAM: the commonly published peak of 2337 Mbit/s.
    #[test]
    fn the_published_peak_rate() {
        let carrier = Carrier {
            bandwidth_mhz: 100,
            numerology: 1,
            range: FrequencyRange::Fr1,
            layers: 4,
            modulation_order: 8,
            code_rate: 948.0 / 1024.0,
        };
        let downlink = carrier.peak_bps(Way::Downlink).expect("a carrier");
        assert!((downlink / 1e6 - 2337.0).abs() < 1.0, "{downlink}");
        // Two layers up: 2 x 8 x 0.92578 x 3276 x 28000 x 0.92.
        let uplink = Carrier { layers: 2, ..carrier }.peak_bps(Way::Uplink).expect("a carrier");
        assert!((uplink / 1e6 - 1250.0).abs() < 1.0, "{uplink}");
        assert_eq!(Carrier { bandwidth_mhz: 35, ..carrier }.peak_bps(Way::Uplink), None);
    }

    #[test]
    fn better_schemes_carry_more() {
        for table in [McsTable::Qam64, McsTable::Qam256] {
            let bits: Vec<f64> =
                (0..).map_while(|i| mcs(table, i)).map(|(q, r)| f64::from(q) * r).collect();
            // The 64QAM table's step from 16 to 17 is the one that loses a little, as in the spec.
            assert!(bits.windows(2).all(|w| w[1] > w[0] - 0.005), "{bits:?}");
            assert!(bits.len() >= 28);
        }
        assert_eq!(mcs(McsTable::Qam256, 28), None);
    }
}
