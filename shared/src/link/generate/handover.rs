//! Which site serves the phone, and the silence when that changes.
//!
//! A neighbour takes over when it has been better by a margin for a while: event A3 of
//! TS 38.331, clause 5.5.4.4. Margin, time and gap are set by operators; chosen by us.

use super::draw::Draws;

/// How much better a neighbour must be, dB.
const MARGIN_DB: f64 = 3.0;
/// For how long, s (one of the values TS 38.331 allows for time-to-trigger).
const TRIGGER_S: f64 = 0.16;
/// How long nothing is sent while the phone changes over, s.
const GAP_S: (f64, f64) = (0.03, 0.06);

#[derive(Debug)]
pub(super) struct Serving {
    draws: Draws,
    site: Option<usize>,
    /// The neighbour that is better, and since how long, s.
    better: Option<(usize, f64)>,
    gap_s: f64,
}

impl Serving {
    pub(super) fn new(draws: Draws) -> Self {
        Self { draws, site: None, better: None, gap_s: 0.0 }
    }

    /// Whether the phone is between two sites.
    pub(super) fn in_gap(&self) -> bool {
        self.gap_s > 0.0
    }

    /// The serving site, `dt_s` later, given the loss to each in dB; not empty.
    pub(super) fn advance(&mut self, losses_db: &[f64], dt_s: f64) -> usize {
        let least = |a: &usize, b: &usize| losses_db[*a].total_cmp(&losses_db[*b]);
        let best = (0..losses_db.len()).min_by(least).unwrap_or(0);
        let site = *self.site.get_or_insert(best);
        self.gap_s = (self.gap_s - dt_s).max(0.0);
        if losses_db[best] + MARGIN_DB >= losses_db[site] {
            self.better = None;
            return site;
        }
        let since = match self.better {
            Some((neighbour, since)) if neighbour == best => since + dt_s,
            _ => dt_s,
        };
        self.better = Some((best, since));
        if since < TRIGGER_S {
            return site;
        }
        self.gap_s = self.draws.between(GAP_S);
        self.better = None;
        self.site = Some(best);
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_takes_over_after_the_trigger_and_a_gap() {
        let mut serving = Serving::new(Draws::new(1, 0));
        assert_eq!(serving.advance(&[90.0, 95.0], 0.01), 0, "the first is the best");
        for _ in 0..15 {
            assert_eq!(serving.advance(&[90.0, 80.0], 0.01), 0);
        }
        assert_eq!(serving.advance(&[90.0, 88.0], 0.01), 0, "within the margin: starts anew");
        let ticks = (1..100).find(|_| serving.advance(&[90.0, 80.0], 0.01) == 1).unwrap();
        assert_eq!(ticks, 16);
        let gap = (0..100).take_while(|_| {
            let silent = serving.in_gap();
            serving.advance(&[90.0, 80.0], 0.01);
            silent
        });
        assert!((3..=6).contains(&gap.count()));
    }
}
