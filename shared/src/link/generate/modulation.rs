//! How much a signal carries: from the signal-to-noise ratio to bits per symbol.
//!
//! A phone reports a channel quality indicator (CQI); the base station picks modulation and
//! code rate by it. The tables are those of TS 38.214. The ratio at which a CQI can be used
//! is not specified. Here it is the least one at which `CODING × log2(1 + SNR)` reaches the
//! CQI's efficiency: the attenuated, truncated Shannon bound of TR 36.942, annex A.2. That
//! report attenuates by 0.6 down and 0.4 up, of which fading is a part; fading is modelled
//! here by itself, so `CODING` is higher: chosen by us.

/// Part of the Shannon bound that is reached.
const CODING: f64 = 0.75;

/// Bits per symbol of the modulation, and code rate × 1024, of CQI 1 to 15.
type Table = [(u32, u32); 15];

/// TS 38.214 table 5.2.2.1-2.
const QAM64: Table = [
    (2, 78),
    (2, 120),
    (2, 193),
    (2, 308),
    (2, 449),
    (2, 602),
    (4, 378),
    (4, 490),
    (4, 616),
    (6, 466),
    (6, 567),
    (6, 666),
    (6, 772),
    (6, 873),
    (6, 948),
];

/// TS 38.214 table 5.2.2.1-3.
const QAM256: Table = [
    (2, 78),
    (2, 193),
    (2, 449),
    (4, 378),
    (4, 490),
    (4, 616),
    (6, 466),
    (6, 567),
    (6, 666),
    (6, 772),
    (6, 873),
    (8, 711),
    (8, 797),
    (8, 885),
    (8, 948),
];

/// The densest modulation that a direction may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modulation {
    /// CQI table 1.
    Qam64,
    /// CQI table 2.
    Qam256,
}

impl Modulation {
    fn efficiencies(self) -> impl DoubleEndedIterator<Item = f64> {
        let table = match self {
            Modulation::Qam64 => QAM64,
            Modulation::Qam256 => QAM256,
        };
        table.into_iter().map(|(bits, code_rate)| f64::from(bits * code_rate) / 1024.0)
    }

    /// Bits per symbol and layer of the best CQI that the ratio allows; 0 below CQI 1, where
    /// the phone is out of range.
    pub(super) fn efficiency(self, snr_db: f64) -> f64 {
        let bound = CODING * (1.0 + 10f64.powf(snr_db / 10.0)).log2();
        self.efficiencies().rfind(|efficiency| *efficiency <= bound).unwrap_or(0.0)
    }

    /// That of CQI 15.
    pub(super) fn best(self) -> f64 {
        self.efficiencies().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables' own column of efficiencies, which they give besides the code rates.
    #[test]
    fn efficiencies_are_those_that_the_tables_print() {
        let printed = [
            (
                Modulation::Qam64,
                [
                    0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141, 2.4063, 2.7305,
                    3.3223, 3.9023, 4.5234, 5.1152, 5.5547,
                ],
            ),
            (
                Modulation::Qam256,
                [
                    0.1523, 0.3770, 0.8770, 1.4766, 1.9141, 2.4063, 2.7305, 3.3223, 3.9023, 4.5234,
                    5.1152, 5.5547, 6.2266, 6.9141, 7.4063,
                ],
            ),
        ];
        for (modulation, column) in printed {
            for (got, printed) in modulation.efficiencies().zip(column) {
                assert!((got - printed).abs() <= 0.5e-4 + 1e-9, "{got} {printed}");
            }
            assert!(modulation.efficiencies().is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn more_signal_never_carries_less() {
        for modulation in [Modulation::Qam64, Modulation::Qam256] {
            let curve: Vec<f64> =
                (-300..600).map(|tenth| modulation.efficiency(f64::from(tenth) / 10.0)).collect();
            assert!(curve.is_sorted());
            assert_eq!((curve[0], curve[curve.len() - 1]), (0.0, modulation.best()));
            assert_eq!(modulation.efficiency(-8.5), 0.0, "CQI 1 needs about -8 dB");
            assert!(modulation.efficiency(-8.0) > 0.0);
        }
    }
}
