//! What is lost on the way: 3GPP TR 38.901, "Study on channel model for frequencies from
//! 0.5 to 100 GHz".
//!
//! Path loss is table 7.4.1-1, the probability of line of sight table 7.4.2-1 (outdoor),
//! the decorrelation distance of shadowing table 7.5-6, that of the line-of-sight state
//! table 7.6.3.1-2. Distances are in m, frequencies in GHz, losses in dB.

/// Speed of light as TR 38.901 rounds it, m/s.
const LIGHT_MPS: f64 = 3.0e8;
/// Height of the phone, m.
const PHONE_M: f64 = 1.5;
/// Below this the formulas do not hold; nearer phones are taken to be here, m.
const NEAREST_M: f64 = 10.0;
/// Effective height of the surroundings for a phone on the street (table 7.4.1-1, note 1), m.
const SURROUNDINGS_M: f64 = 1.0;
/// Mean height of buildings and width of streets of the rural formulas (their defaults), m.
const RURAL_BUILDINGS_M: f64 = 5.0;
const RURAL_STREETS_M: f64 = 20.0;

/// Where the cell is, in the terms of TR 38.901.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// UMa: antennas above the roofs.
    UrbanMacro,
    /// UMi, street canyon: antennas below the roofs.
    UrbanMicro,
    /// RMa.
    RuralMacro,
}

/// How shadowing varies: a log-normal process along the path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shadowing {
    pub(super) sigma_db: f64,
    pub(super) decorrelation_m: f64,
}

impl Environment {
    /// Height of the site's antenna, m: tables 7.2-1 and 7.2-3.
    fn site_m(self) -> f64 {
        match self {
            Environment::UrbanMacro => 25.0,
            Environment::UrbanMicro => 10.0,
            Environment::RuralMacro => 35.0,
        }
    }

    /// Where line-of-sight loss steepens, m.
    fn break_point_m(self, ghz: f64) -> f64 {
        let hz = ghz * 1e9;
        if self == Environment::RuralMacro {
            return std::f64::consts::TAU * self.site_m() * PHONE_M * hz / LIGHT_MPS;
        }
        4.0 * (self.site_m() - SURROUNDINGS_M) * (PHONE_M - SURROUNDINGS_M) * hz / LIGHT_MPS
    }

    /// Path loss without shadowing, dB, at a horizontal distance.
    pub(super) fn path_loss_db(self, line_of_sight: bool, distance_m: f64, ghz: f64) -> f64 {
        let ground = distance_m.max(NEAREST_M);
        let direct = ground.hypot(self.site_m() - PHONE_M);
        let clear = match self {
            Environment::UrbanMacro => self.urban_los(ground, direct, ghz, [28.0, 22.0, 9.0]),
            Environment::UrbanMicro => self.urban_los(ground, direct, ghz, [32.4, 21.0, 9.5]),
            Environment::RuralMacro => self.rural_los(ground, direct, ghz),
        };
        if line_of_sight {
            return clear;
        }
        let (d, f) = (direct.log10(), ghz.log10());
        clear.max(match self {
            Environment::UrbanMacro => 13.54 + 39.08 * d + 20.0 * f - 0.6 * (PHONE_M - 1.5),
            Environment::UrbanMicro => 22.4 + 35.3 * d + 21.3 * f - 0.3 * (PHONE_M - 1.5),
            Environment::RuralMacro => self.rural_nlos(d, f),
        })
    }

    fn urban_los(self, ground: f64, direct: f64, ghz: f64, [base, slope, step]: [f64; 3]) -> f64 {
        let break_point = self.break_point_m(ghz);
        let near = base + 20.0 * ghz.log10();
        if ground <= break_point {
            return near + slope * direct.log10();
        }
        let height = self.site_m() - PHONE_M;
        near + 40.0 * direct.log10() - step * (break_point.powi(2) + height.powi(2)).log10()
    }

    fn rural_los(self, ground: f64, direct: f64, ghz: f64) -> f64 {
        let roughness = RURAL_BUILDINGS_M.powf(1.72);
        let near = |d: f64| {
            20.0 * (40.0 * std::f64::consts::PI * d * ghz / 3.0).log10()
                + (0.03 * roughness).min(10.0) * d.log10()
                - (0.044 * roughness).min(14.77)
                + 0.002 * RURAL_BUILDINGS_M.log10() * d
        };
        let break_point = self.break_point_m(ghz);
        if ground <= break_point {
            return near(direct);
        }
        near(break_point) + 40.0 * (direct / break_point).log10()
    }

    fn rural_nlos(self, log_distance: f64, log_ghz: f64) -> f64 {
        let site = self.site_m();
        161.04 - 7.1 * RURAL_STREETS_M.log10() + 7.5 * RURAL_BUILDINGS_M.log10()
            - (24.37 - 3.7 * (RURAL_BUILDINGS_M / site).powi(2)) * site.log10()
            + (43.42 - 3.1 * site.log10()) * (log_distance - 3.0)
            + 20.0 * log_ghz
            - (3.2 * (11.75 * PHONE_M).log10().powi(2) - 4.97)
    }

    /// How likely the site is in sight; for a phone below 13 m.
    pub(super) fn sight_probability(self, distance_m: f64) -> f64 {
        let street = |scale_m: f64| match distance_m {
            d if d <= 18.0 => 1.0,
            d => 18.0 / d + (-d / scale_m).exp() * (1.0 - 18.0 / d),
        };
        match self {
            Environment::UrbanMacro => street(63.0),
            Environment::UrbanMicro => street(36.0),
            Environment::RuralMacro => (-(distance_m - 10.0).max(0.0) / 1_000.0).exp(),
        }
    }

    /// Over how many metres of walking the line-of-sight state is renewed.
    pub(super) fn sight_decorrelation_m(self) -> f64 {
        if self == Environment::RuralMacro { 60.0 } else { 50.0 }
    }

    pub(super) fn shadowing(self, line_of_sight: bool, distance_m: f64, ghz: f64) -> Shadowing {
        let (sigma_db, decorrelation_m) = match (self, line_of_sight) {
            (Environment::UrbanMacro, true) => (4.0, 37.0),
            (Environment::UrbanMacro, false) => (6.0, 50.0),
            (Environment::UrbanMicro, true) => (4.0, 10.0),
            (Environment::UrbanMicro, false) => (7.82, 13.0),
            (Environment::RuralMacro, true) if distance_m <= self.break_point_m(ghz) => (4.0, 37.0),
            (Environment::RuralMacro, true) => (6.0, 37.0),
            (Environment::RuralMacro, false) => (8.0, 120.0),
        };
        Shadowing { sigma_db, decorrelation_m }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Environment; 3] =
        [Environment::UrbanMacro, Environment::UrbanMicro, Environment::RuralMacro];

    /// The table's formulas worked out by hand, with a pocket calculator's precision.
    #[test]
    fn losses_are_those_worked_out_by_hand() {
        let loss = |env: Environment, los, d, ghz| env.path_loss_db(los, d, ghz);
        for (got, by_hand) in [
            (loss(Environment::UrbanMacro, true, 100.0, 3.5), 83.138),
            (loss(Environment::UrbanMacro, false, 100.0, 3.5), 103.038),
            (loss(Environment::UrbanMicro, true, 50.0, 28.0), 97.151),
            (loss(Environment::UrbanMicro, false, 50.0, 28.0), 113.417),
            (loss(Environment::RuralMacro, true, 500.0, 0.7), 84.633),
            (loss(Environment::RuralMacro, false, 1_000.0, 0.7), 116.445),
        ] {
            assert!((got - by_hand).abs() < 0.002, "{got} {by_hand}");
        }
    }

    #[test]
    fn the_break_point_leaves_no_step() {
        for (env, ghz) in ALL.into_iter().zip([3.5, 28.0, 0.7]) {
            let at = env.break_point_m(ghz);
            let step = env.path_loss_db(true, at + 1e-6, ghz) - env.path_loss_db(true, at, ghz);
            // RMa measures its second slope from the ground distance: 0.02 dB.
            assert!(step.abs() < 0.03, "{env:?}: {step}");
        }
    }

    proptest! {
        #[test]
        fn loss_grows_with_distance_and_without_sight(near in 10.0..4_000.0, more in 0.1..1_000.0) {
            for (env, ghz) in ALL.into_iter().zip([3.5, 28.0, 0.7]) {
                let far = near + more;
                for sight in [true, false] {
                    let loss = |d: f64| env.path_loss_db(sight, d, ghz);
                    prop_assert!(loss(far) > loss(near), "{:?} {}", env, sight);
                }
                prop_assert!(env.path_loss_db(false, near, ghz) >= env.path_loss_db(true, near, ghz));
                prop_assert!(env.sight_probability(far) <= env.sight_probability(near));
                prop_assert!((0.0..=1.0).contains(&env.sight_probability(far)));
            }
        }
    }
}
