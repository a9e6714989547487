//! The networks that traces are made on: every figure in one place.
//!
//! From specifications: resource blocks of a carrier (TS 38.101-1 and 38.101-2, table
//! 5.3.2-1), the overhead (TS 38.306, clause 4.1.2), 23 dBm of a phone (power class 3,
//! TS 38.101-1, clause 6.2.1), distances between sites (TR 38.901, tables 7.2-1 and 7.2-3),
//! 9 dB into a car (TR 38.901, clause 7.4.3.2, the mean). Orders of magnitude, chosen by
//! us: powers and antenna gains of sites, noise figures, slot patterns, how much of a cell
//! one phone gets, load of the neighbours, fading, round trips. They describe no operator
//! and no place.

use super::modulation::Modulation;
use super::propagation::Environment;

/// A network and a way to move through it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scenario {
    /// As given on a command line.
    pub name: &'static str,
    /// Which formulas of TR 38.901.
    pub environment: Environment,
    /// Carrier frequency, GHz.
    pub frequency_ghz: f64,
    /// Of all carriers together.
    pub resource_blocks: f64,
    /// Subcarrier spacing, kHz.
    pub spacing_khz: f64,
    /// Between neighbouring sites, which stand on a hexagonal grid, m.
    pub site_distance_m: f64,
    /// The phone stays this near the middle site, m.
    pub roam_m: f64,
    /// Slowest and fastest, m/s.
    pub speeds_mps: (f64, f64),
    /// Longest stop at a waypoint, s.
    pub longest_pause_s: f64,
    /// Into a car, dB; 0 outdoors.
    pub entry_loss_db: f64,
    /// Of both ends together, with beams, dB; the same both ways.
    pub antenna_gain_db: f64,
    /// Edge to cloud.
    pub uplink: Side,
    /// Cloud to edge.
    pub downlink: Side,
    /// Part of the cell's time that this phone gets; the rest is other people's.
    pub cell_share: f64,
    /// Part of a neighbour's full power that disturbs this phone's downlink: how busy it is,
    /// and how seldom its beam points here.
    pub neighbour_load: f64,
    /// How far other cells' phones raise the noise at the site, dB.
    pub uplink_interference_db: f64,
    /// Standard deviation of what fast fading leaves after averaging over a wide band and
    /// several antennas, dB.
    pub fading_db: f64,
    /// Bodies in the beam, where beams are narrow; each comes and goes by itself.
    pub blockages: &'static [Blockage],
    /// Round trip of a small packet with a good signal, ms.
    pub rtt_ms: f64,
    /// What is added to it when the uplink carries nothing (retransmissions, waiting for
    /// grants), ms.
    pub weak_rtt_ms: f64,
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Side {
    /// Of the sender, dBm.
    pub power_dbm: f64,
    /// Of the receiver, dB.
    pub noise_figure_db: f64,
    /// Most streams sent at once over several antennas.
    pub layers: u32,
    /// The densest one.
    pub modulation: Modulation,
    /// Part of the symbols that carry no data.
    pub overhead: f64,
    /// Part of the symbols that belong to this direction: 1 with a frequency of its own.
    pub time_share: f64,
    /// Least part of the carrier that a sender short of power is put on.
    pub narrowest: f64,
}

/// On/off: how long nobody is in the way, how long somebody is, and what that takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blockage {
    /// Mean, s.
    pub clear_s: f64,
    /// Mean, s.
    pub blocked_s: f64,
    /// Least and most, dB; over 0.
    pub depth_db: (f64, f64),
}

/// DDDSU slots, the fourth 10 symbols down, 2 empty, 2 up: of 70 symbols, 52 and 16.
const DOWN_SLOTS: f64 = 52.0 / 70.0;
const UP_SLOTS: f64 = 16.0 / 70.0;

/// Band n78, one 100 MHz carrier, a town's macro cells; on foot.
const MIDBAND_WALK: Scenario = Scenario {
    name: "midband-walk",
    environment: Environment::UrbanMacro,
    frequency_ghz: 3.5,
    resource_blocks: 273.0,
    spacing_khz: 30.0,
    site_distance_m: 500.0,
    roam_m: 300.0,
    speeds_mps: (0.8, 1.8),
    longest_pause_s: 10.0,
    entry_loss_db: 0.0,
    antenna_gain_db: 17.0,
    uplink: Side {
        power_dbm: 23.0,
        noise_figure_db: 5.0,
        layers: 1,
        modulation: Modulation::Qam256,
        overhead: 0.08,
        time_share: UP_SLOTS,
        narrowest: 1.0 / 16.0,
    },
    downlink: Side {
        power_dbm: 46.0,
        noise_figure_db: 7.0,
        layers: 4,
        modulation: Modulation::Qam256,
        overhead: 0.14,
        time_share: DOWN_SLOTS,
        narrowest: 1.0,
    },
    cell_share: 0.5,
    neighbour_load: 0.1,
    uplink_interference_db: 3.0,
    fading_db: 1.5,
    blockages: &[],
    rtt_ms: 20.0,
    weak_rtt_ms: 30.0,
};

/// The same cells from a car in town: 20 to 60 km/h, with stops.
const MIDBAND_DRIVE: Scenario =
    Scenario { name: "midband-drive", speeds_mps: (5.6, 16.7), entry_loss_db: 9.0, ..MIDBAND_WALK };

/// Duration and mean depth as measured by MacCartney, Rappaport and Rangan, "Rapid Fading Due
/// to Human Blockage in Pedestrian Crowds at 5G Millimeter-Wave Frequencies", IEEE GLOBECOM
/// 2017 (73.5 GHz, beam of 7 degrees: 299 ms, 15.8 dB); how often they come and how the depth
/// spreads, chosen by us.
const PASSERS_BY: Blockage = Blockage { clear_s: 2.0, blocked_s: 0.3, depth_db: (5.8, 25.8) };
/// The user turns away from a site. Depth: self-blocking of TR 38.901, clause 7.6.4.1; how
/// often and how long, chosen by us.
const OWN_BODY: Blockage = Blockage { clear_s: 10.0, blocked_s: 2.0, depth_db: (30.0, 30.0) };

/// Band n257, four 100 MHz carriers, small cells in streets; on foot among people.
const MMWAVE_WALK: Scenario = Scenario {
    name: "mmwave-walk",
    environment: Environment::UrbanMicro,
    frequency_ghz: 28.0,
    resource_blocks: 264.0,
    spacing_khz: 120.0,
    site_distance_m: 200.0,
    roam_m: 120.0,
    // Of a site with 25, less what a hand and beams that lag behind cost.
    antenna_gain_db: 22.0,
    uplink: Side {
        noise_figure_db: 7.0,
        modulation: Modulation::Qam64,
        overhead: 0.10,
        ..MIDBAND_WALK.uplink
    },
    downlink: Side {
        power_dbm: 30.0,
        noise_figure_db: 10.0,
        layers: 2,
        modulation: Modulation::Qam64,
        overhead: 0.18,
        ..MIDBAND_WALK.downlink
    },
    neighbour_load: 0.02,
    uplink_interference_db: 1.0,
    blockages: &[PASSERS_BY, OWN_BODY],
    rtt_ms: 12.0,
    ..MIDBAND_WALK
};

/// Band n28, one 20 MHz carrier with a frequency for each direction, rural macro cells; from
/// a car at 60 to 100 km/h.
const LOWBAND_DRIVE: Scenario = Scenario {
    name: "lowband-drive",
    environment: Environment::RuralMacro,
    frequency_ghz: 0.7,
    resource_blocks: 106.0,
    spacing_khz: 15.0,
    site_distance_m: 5_000.0,
    roam_m: 2_900.0,
    speeds_mps: (16.7, 27.8),
    longest_pause_s: 0.0,
    entry_loss_db: 9.0,
    antenna_gain_db: 12.0,
    uplink: Side { modulation: Modulation::Qam64, time_share: 1.0, ..MIDBAND_WALK.uplink },
    downlink: Side { layers: 2, time_share: 1.0, ..MIDBAND_WALK.downlink },
    neighbour_load: 0.3,
    fading_db: 2.5,
    rtt_ms: 40.0,
    weak_rtt_ms: 60.0,
    ..MIDBAND_WALK
};

impl Scenario {
    /// The names [`Scenario::named`] knows.
    pub const NAMES: [&str; 4] = ["midband-walk", "midband-drive", "mmwave-walk", "lowband-drive"];

    /// The built-in scenario of that name.
    pub fn named(name: &str) -> Option<Scenario> {
        let all = [MIDBAND_WALK, MIDBAND_DRIVE, MMWAVE_WALK, LOWBAND_DRIVE];
        all.into_iter().find(|scenario| scenario.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_names_are_built_in() {
        for name in Scenario::NAMES {
            assert_eq!(Scenario::named(name).unwrap().name, name);
        }
        assert_eq!(Scenario::named("6g"), None);
    }
}
