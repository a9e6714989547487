//! From what arrives of a signal to bits per second, for each direction.

use super::scenario::{Scenario, Side};

/// Thermal noise at 290 K, dBm/Hz.
const NOISE_DBM_PER_HZ: f64 = -174.0;
/// Subcarriers in a resource block, and symbols in a slot: TS 38.211, clauses 4.4.4.1, 4.3.2.
const SUBCARRIERS: f64 = 12.0;
const SYMBOLS_PER_SLOT: f64 = 14.0;

/// bit/s in each direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    pub(super) uplink_bps: f64,
    pub(super) downlink_bps: f64,
}

/// The rates on the serving site's signal.
///
/// `losses_db` are those to all sites; `fading_db` adds to what comes of the serving one.
pub(super) fn rates(
    scenario: &Scenario,
    losses_db: &[f64],
    serving: usize,
    fading_db: f64,
) -> Rates {
    let gain_db = |site: usize| scenario.antenna_gain_db - scenario.entry_loss_db - losses_db[site];
    let signal_db = gain_db(serving) + fading_db;
    let (up, down) = (&scenario.uplink, &scenario.downlink);
    let neighbours: f64 = (0..losses_db.len())
        .filter(|site| *site != serving)
        .map(|site| scenario.neighbour_load * milliwatts(down.power_dbm + gain_db(site)))
        .sum();
    let heard = milliwatts(noise_dbm(scenario, down)) + neighbours;
    let down_snr_db = down.power_dbm + signal_db - 10.0 * heard.log10();
    let heard_dbm = noise_dbm(scenario, up) + scenario.uplink_interference_db;
    let up_snr_db = up.power_dbm + signal_db - heard_dbm;
    Rates {
        uplink_bps: rate_bps(scenario, up, bits_per_symbol(up, up_snr_db)),
        downlink_bps: rate_bps(scenario, down, bits_per_symbol(down, down_snr_db)),
    }
}

/// What a direction reaches beside the mast, bit/s.
pub(super) fn best_bps(scenario: &Scenario, side: &Side) -> f64 {
    rate_bps(scenario, side, f64::from(side.layers) * side.modulation.best())
}

/// With the number of layers and, where power is short, the part of the carrier that carry
/// most. Layers share the power and are taken not to disturb each other.
fn bits_per_symbol(side: &Side, snr_db: f64) -> f64 {
    let mut best: f64 = 0.0;
    for layers in (1..=side.layers).map(f64::from) {
        let mut part = 1.0;
        while part >= side.narrowest {
            let each_db = snr_db - 10.0 * (layers * part).log10();
            best = best.max(layers * part * side.modulation.efficiency(each_db));
            part /= 2.0;
        }
    }
    best
}

fn rate_bps(scenario: &Scenario, side: &Side, bits_per_symbol: f64) -> f64 {
    let slots_per_s = 1_000.0 * scenario.spacing_khz / 15.0;
    let symbols_per_s = scenario.resource_blocks * SUBCARRIERS * SYMBOLS_PER_SLOT * slots_per_s;
    let share = side.time_share * (1.0 - side.overhead) * scenario.cell_share;
    symbols_per_s * bits_per_symbol * share
}

fn noise_dbm(scenario: &Scenario, side: &Side) -> f64 {
    let hz = scenario.resource_blocks * SUBCARRIERS * scenario.spacing_khz * 1_000.0;
    NOISE_DBM_PER_HZ + 10.0 * hz.log10() + side.noise_figure_db
}

fn milliwatts(dbm: f64) -> f64 {
    10f64.powf(dbm / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_with_loss_and_with_neighbours() {
        for name in Scenario::NAMES {
            let scenario = Scenario::named(name).unwrap();
            let alone = |loss| rates(&scenario, &[loss], 0, 0.0);
            let all: Vec<Rates> = (60..200).map(|loss| alone(f64::from(loss))).collect();
            assert!(all.is_sorted_by(
                |a, b| a.uplink_bps >= b.uplink_bps && a.downlink_bps >= b.downlink_bps
            ));
            assert_eq!(all[0].downlink_bps, best_bps(&scenario, &scenario.downlink));
            assert_eq!(all[139], Rates { uplink_bps: 0.0, downlink_bps: 0.0 });
            let between = rates(&scenario, &[90.0, 91.0], 0, 0.0);
            assert!(between.downlink_bps < alone(90.0).downlink_bps);
        }
    }

    /// TS 38.306, clause 4.1.2: 273 blocks at 30 kHz, 4 layers, 256QAM at 948/1024, OH 0.14
    /// give 2.34 Gbit/s before the slots are divided between the directions.
    #[test]
    fn the_peak_is_that_of_the_specification() {
        let mut scenario = Scenario::named("midband-walk").unwrap();
        scenario.cell_share = 1.0;
        scenario.downlink.time_share = 1.0;
        let peak = best_bps(&scenario, &scenario.downlink) / 1e9;
        assert!((peak - 2.34).abs() < 0.01, "{peak}");
    }

    #[test]
    fn an_uplink_short_of_power_takes_less_of_the_carrier() {
        let wide = Scenario::named("midband-walk").unwrap().uplink;
        assert_eq!(Side { narrowest: 1.0, ..wide }.modulation.efficiency(-15.0), 0.0);
        assert!(bits_per_symbol(&wide, -15.0) > 0.0);
        assert_eq!(bits_per_symbol(&Side { narrowest: 1.0, ..wide }, -15.0), 0.0);
    }
}
