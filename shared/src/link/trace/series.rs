//! A measured value over time that is no rate: the round trip of a trace.

use super::lap::{AtEnd, Lap};

/// A piecewise-constant value, in ms for a round trip.
///
/// Two series are equal when they have the same value at every instant and the same length.
#[derive(Clone, Debug)]
pub struct Series {
    /// Start, ns, and value; the first starts at 0.
    points: Vec<(u64, f64)>,
    lap: Lap,
}

impl Series {
    /// From points in order of time, none of them NaN; before the first, its value holds.
    /// None when there are no points.
    pub(in super::super) fn new(
        mut points: Vec<(u64, f64)>,
        length_ns: u64,
        at_end: AtEnd,
    ) -> Option<Self> {
        points.first_mut()?.0 = 0;
        debug_assert!(points.is_sorted_by(|a, b| a.0 < b.0) && length_ns > 0);
        Some(Self { points, lap: Lap { length_ns, at_end } })
    }

    /// The value at an instant.
    pub fn at(&self, t_ns: u64) -> f64 {
        let (_, phase) = self.lap.fold(t_ns);
        let after = self.points.partition_point(|point| point.0 <= phase);
        self.points[after - 1].1 // the first point starts at 0
    }

    pub(super) fn lap(&self) -> Lap {
        self.lap
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = u64> + '_ {
        self.points.iter().map(|point| point.0)
    }

    fn runs(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let mut last = None;
        self.points.iter().copied().filter(move |point| last.replace(point.1) != Some(point.1))
    }
}

impl PartialEq for Series {
    fn eq(&self, other: &Series) -> bool {
        self.lap == other.lap && self.runs().eq(other.runs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_between_points_and_follows_the_end() {
        let points = || vec![(2, 20.0), (5, 30.0)];
        let looped = Series::new(points(), 10, AtEnd::Loop).unwrap();
        let values: Vec<f64> = [0, 2, 4, 5, 9, 10, 14, 15].map(|t| looped.at(t)).to_vec();
        assert_eq!(values, [20.0, 20.0, 20.0, 30.0, 30.0, 20.0, 20.0, 30.0]);
        let held = Series::new(points(), 10, AtEnd::Hold).unwrap();
        assert_eq!(held.at(u64::MAX), 30.0);
        assert_ne!(looped, held);
        assert_eq!(Series::new(vec![], 10, AtEnd::Hold), None);
    }
}
