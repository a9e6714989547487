//! When a trial is not worth its remaining epochs.
//!
//! Both rules compare a trial with what others had come to at the same epoch, so that trials run side by
//! side without waiting for one another; with several at once, which ones are stopped depends on
//! who was first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::train::Verdict;

/// Trials that must have come as far, before one is stopped by the median.
const MEDIAN_OF: usize = 3;
/// Of the trials at a rung, one in so many goes on.
const REDUCTION: usize = 3;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Every trial runs to its end.
    None,
    /// Stops a trial whose best value is worse than the median of the others' running means (Golovin
    /// et al. 2017); the first epoch is not judged.
    Median,
    /// Successive halving without waiting (Li et al. 2020): after 1, 3, 9, ... epochs only the best
    /// third of those that came as far goes on.
    Halving,
}

/// What every trial has come to, epoch by epoch; the lower the better.
#[derive(Debug)]
pub struct Board {
    rule: Rule,
    curves: BTreeMap<usize, Vec<f64>>,
}

impl Board {
    pub fn new(rule: Rule) -> Self {
        Self { rule, curves: BTreeMap::new() }
    }

    /// A trial that ended earlier.
    pub fn remember(&mut self, trial: usize, curve: Vec<f64>) {
        self.curves.insert(trial, curve);
    }

    pub fn curve(&self, trial: usize) -> Vec<f64> {
        self.curves.get(&trial).cloned().unwrap_or_default()
    }

    /// Notes a value of an epoch (from 1), and says whether the trial should go on. To be told the same
    /// again, as after a broken connection, changes nothing.
    pub fn note(&mut self, trial: usize, epoch: u64, value: f64) -> Verdict {
        // A loss that is no number is worse than any.
        let value = if value.is_nan() { f64::INFINITY } else { value };
        let epoch = epoch.max(1) as usize;
        let curve = self.curves.entry(trial).or_default();
        if curve.len() < epoch {
            curve.resize(epoch, value);
        }
        curve[epoch - 1] = value;
        let stop = match self.rule {
            Rule::None => false,
            Rule::Median => self.below_median(trial, epoch),
            Rule::Halving => self.falls_at_rung(trial, epoch),
        };
        if stop { Verdict::Stop } else { Verdict::GoOn }
    }

    fn below_median(&self, trial: usize, epoch: usize) -> bool {
        let others = self.curves.iter().filter(|(t, c)| **t != trial && c.len() >= epoch);
        let mut means: Vec<f64> =
            others.map(|(_, c)| c[..epoch].iter().sum::<f64>() / epoch as f64).collect();
        if epoch < 2 || means.len() < MEDIAN_OF {
            return false;
        }
        means.sort_by(f64::total_cmp);
        let middle = means.len() / 2;
        let median = match means.len() % 2 {
            1 => means[middle],
            _ => (means[middle - 1] + means[middle]) / 2.0,
        };
        let best = self.curves[&trial][..epoch].iter().copied().fold(f64::INFINITY, f64::min);
        best > median
    }

    fn falls_at_rung(&self, trial: usize, epoch: usize) -> bool {
        let is_rung = std::iter::successors(Some(1), |rung| Some(rung * REDUCTION))
            .take_while(|&rung| rung <= epoch)
            .any(|rung| rung == epoch);
        if !is_rung {
            return false;
        }
        let at_rung = self.curves.values().filter_map(|c| c.get(epoch - 1));
        let mut values: Vec<f64> = at_rung.copied().collect();
        if values.len() < REDUCTION {
            return false;
        }
        values.sort_by(f64::total_cmp);
        let kept = values.len().div_ceil(REDUCTION);
        self.curves[&trial][epoch - 1] > values[kept - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stops_what_is_worse_than_most() {
        let mut board = Board::new(Rule::Median);
        for (trial, level) in [(1, 0.1), (2, 0.2), (3, 0.3)] {
            for epoch in 1..=3 {
                assert_eq!(board.note(trial, epoch, level), Verdict::GoOn);
            }
        }
        assert_eq!(board.note(4, 1, 0.9), Verdict::GoOn, "the first epoch is not judged");
        assert_eq!(board.note(4, 2, 0.15), Verdict::GoOn, "it has caught up");
        assert_eq!(board.note(5, 1, 0.9), Verdict::GoOn);
        assert_eq!(board.note(5, 2, 0.8), Verdict::Stop);
        assert_eq!(board.note(6, 1, f64::NAN), Verdict::GoOn);
        assert_eq!(board.note(6, 2, f64::NAN), Verdict::Stop);
    }

    #[test]
    fn halving_lets_the_best_third_of_a_rung_go_on() {
        let mut board = Board::new(Rule::Halving);
        assert_eq!(board.note(1, 1, 0.5), Verdict::GoOn, "too few to compare");
        assert_eq!(board.note(2, 1, 0.6), Verdict::GoOn, "too few to compare");
        assert_eq!(board.note(3, 1, 0.55), Verdict::Stop);
        assert_eq!(board.note(4, 1, 0.4), Verdict::GoOn);
        assert_eq!(board.note(1, 2, 9.0), Verdict::GoOn, "2 is no rung");
        // Told again: the same answer.
        assert_eq!(board.note(4, 1, 0.4), Verdict::GoOn);
        assert_eq!(board.curve(1), [0.5, 9.0]);
    }

    #[test]
    fn without_a_rule_nothing_is_stopped() {
        let mut board = Board::new(Rule::None);
        for trial in 1..10 {
            for epoch in 1..10 {
                assert_eq!(board.note(trial, epoch, trial as f64), Verdict::GoOn);
            }
        }
    }
}
