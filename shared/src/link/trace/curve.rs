//! The rate of one direction over time: constant pieces, looked up at any instant.
//!
//! A scheduler asks "what is the rate now, and until when does it stay so?" and
//! divides; it never steps through time. The lookup is a binary search and keeps no
//! cursor, so that one curve can serve every connection of a link.

use super::lap::{AtEnd, Lap};

/// Largest rate accepted, bit/s: far beyond any link, so a slip of the unit.
pub const MAX_RATE_BPS: u64 = 10_000_000_000_000;
/// Latest row accepted, ns (10^9 s): about 30 years, so that nothing overflows.
pub const MAX_TIME_NS: u64 = 1_000_000_000_000_000_000;
/// bit·ns/s in a byte: the unit in which rates are summed exactly.
pub(super) const BIT_NS_PER_BYTE: u128 = 8_000_000_000;

/// A stretch of constant rate, so that a scheduler integrates over few pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// bit/s; 0 is an outage.
    pub rate_bps: u64,
    /// When the rate may next differ, ns; `u64::MAX` when it never does.
    pub until_ns: u64,
}

/// A piecewise-constant rate, of one direction of a trace.
///
/// Two curves are equal when they have the same rate at every instant and the same length.
#[derive(Clone, Debug)]
pub struct Curve {
    pieces: Vec<Piece>,
    lap: Lap,
    /// Of one lap, in bit·ns/s.
    total: u128,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    start_ns: u64,
    rate_bps: u64,
    /// Start of the next piece with another rate; the end of the lap after the last
    /// one, and `u64::MAX` when no other rate ever follows.
    changes_ns: u64,
    /// Integral from the beginning of the lap to `start_ns`, in bit·ns/s.
    before: u128,
}

impl Curve {
    /// From `(start_ns, rate_bps)` rows: the first at 0, strictly increasing, all before
    /// `length_ns`. The error says what is wrong and what to do, without a place.
    ///
    /// A curve that would never deliver, or never again from some instant on, is refused.
    pub fn new(rows: &[(u64, u64)], length_ns: u64, at_end: AtEnd) -> Result<Curve, String> {
        check(rows, length_ns, at_end)?;
        let lap = Lap { length_ns, at_end };
        let mut pieces = Vec::with_capacity(rows.len());
        let mut before = 0;
        for (i, &(start_ns, rate_bps)) in rows.iter().enumerate() {
            pieces.push(Piece { start_ns, rate_bps, changes_ns: 0, before });
            let end = rows.get(i + 1).map_or(length_ns, |next| next.0);
            before += u128::from(rate_bps) * u128::from(end - start_ns);
        }
        let constant = rows.iter().all(|row| row.1 == rows[0].1);
        let mut changes_ns = if constant || at_end == AtEnd::Hold { u64::MAX } else { length_ns };
        for i in (0..pieces.len()).rev() {
            if let Some(next) = pieces.get(i + 1)
                && next.rate_bps != pieces[i].rate_bps
            {
                changes_ns = next.start_ns;
            }
            pieces[i].changes_ns = changes_ns;
        }
        Ok(Curve { pieces, lap, total: before })
    }

    /// The rate at `t_ns` and how long it stays; `until_ns` is always later than `t_ns`,
    /// except at the end of time (`u64::MAX`).
    pub fn at(&self, t_ns: u64) -> Span {
        let (base, phase) = self.lap.fold(t_ns);
        let piece = self.piece(phase);
        let until_ns = match piece.changes_ns {
            u64::MAX => u64::MAX,
            changes_ns => base.saturating_add(changes_ns),
        };
        Span { rate_bps: piece.rate_bps, until_ns }
    }

    /// Length of the recording, ns: one lap when it loops.
    pub fn duration_ns(&self) -> u64 {
        self.lap.length_ns
    }

    /// Whole bytes that the rate amounts to between two instants; 0 when they are swapped.
    pub fn bytes(&self, from_ns: u64, to_ns: u64) -> u64 {
        let bit_ns = self.integral(to_ns).saturating_sub(self.integral(from_ns));
        u64::try_from(bit_ns / BIT_NS_PER_BYTE).unwrap_or(u64::MAX)
    }

    /// Mean rate over the recording, bit/s.
    pub fn mean_bps(&self) -> f64 {
        self.total as f64 / self.lap.length_ns as f64
    }

    /// `(start_ns, rate_bps)` of every row of the recording, for writers and plots.
    pub fn rows(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.pieces.iter().map(|piece| (piece.start_ns, piece.rate_bps))
    }

    pub(super) fn lap(&self) -> Lap {
        self.lap
    }

    fn piece(&self, phase_ns: u64) -> &Piece {
        let after = self.pieces.partition_point(|piece| piece.start_ns <= phase_ns);
        &self.pieces[after - 1] // the first piece starts at 0
    }

    /// From 0 to `t_ns`, in bit·ns/s: at most 10^13 × 2^64, which fits.
    fn integral(&self, t_ns: u64) -> u128 {
        let (base, phase) = self.lap.fold(t_ns);
        let piece = self.piece(phase);
        let here = u128::from(piece.rate_bps) * u128::from(phase - piece.start_ns);
        u128::from(base / self.lap.length_ns) * self.total + piece.before + here
    }

    fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut last = None;
        self.rows().filter(move |row| last.replace(row.1) != Some(row.1))
    }
}

impl PartialEq for Curve {
    fn eq(&self, other: &Curve) -> bool {
        self.lap == other.lap && self.runs().eq(other.runs())
    }
}

fn check(rows: &[(u64, u64)], length_ns: u64, at_end: AtEnd) -> Result<(), String> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Err("no rows; give at least one".to_owned());
    };
    if first.0 != 0 {
        return Err(format!("the first row is at {} ns; start at 0", first.0));
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return Err(format!("{} ns follows {} ns; sort the rows by time", pair[1].0, pair[0].0));
    }
    if length_ns <= last.0 || length_ns > 2 * MAX_TIME_NS {
        let highest = 2 * MAX_TIME_NS;
        return Err(format!(
            "the length is {length_ns} ns; allowed: over {} (the last row) to {highest} ns",
            last.0
        ));
    }
    if let Some(row) = rows.iter().find(|row| row.1 > MAX_RATE_BPS) {
        return Err(format!("a rate of {} bit/s; allowed: 0 to {MAX_RATE_BPS} bit/s", row.1));
    }
    if rows.iter().all(|row| row.1 == 0) {
        return Err("the rate is 0 throughout, so nothing would ever be delivered; give at \
                    least one row a rate"
            .to_owned());
    }
    if at_end == AtEnd::Hold && last.1 == 0 {
        return Err("the last row has rate 0 and would hold for ever, so nothing would be \
                    delivered after it; end on a row with a rate, or loop the trace"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows on a small grid of ns, with rates of whole bytes per ns now and then.
    fn rows() -> impl Strategy<Value = (Vec<(u64, u64)>, u64)> {
        let rate = prop_oneof![Just(0), Just(8_000_000_000), 1..=MAX_RATE_BPS];
        let row = (1..9u64, rate);
        (prop::collection::vec(row, 1..12), 1..9u64)
            .prop_map(|(steps, tail)| {
                let mut at = 0;
                let rows: Vec<_> = steps
                    .iter()
                    .map(|&(step, rate)| {
                        at += step;
                        (at - steps[0].0, rate)
                    })
                    .collect();
                let length = rows[rows.len() - 1].0 + tail;
                (rows, length)
            })
            .prop_filter("delivers", |(rows, _)| rows.iter().any(|row| row.1 > 0))
    }

    fn slow_rate(rows: &[(u64, u64)], length: u64, at_end: AtEnd, t: u64) -> u64 {
        let phase = if at_end == AtEnd::Loop { t % length } else { t };
        rows.iter().rfind(|row| row.0 <= phase).map_or(0, |row| row.1)
    }

    fn ends() -> impl Strategy<Value = AtEnd> {
        prop_oneof![Just(AtEnd::Loop), Just(AtEnd::Hold)]
    }

    proptest! {
        #[test]
        fn rates_and_bytes_agree_with_a_walk_over_every_nanosecond(
            (mut rows, length) in rows(), at_end in ends(),
            from in 0..250u64, span in 0..250u64,
        ) {
            if at_end == AtEnd::Hold && rows[rows.len() - 1].1 == 0 {
                let last = rows.len() - 1;
                rows[last].1 = 5;
            }
            let curve = Curve::new(&rows, length, at_end).unwrap();
            let slow = |t| slow_rate(&rows, length, at_end, t);
            let sum: u128 = (from..from + span).map(|t| u128::from(slow(t))).sum();
            prop_assert_eq!(u128::from(curve.bytes(from, from + span)), sum / BIT_NS_PER_BYTE);
            let now = curve.at(from);
            prop_assert!(now.until_ns > from);
            for t in from..now.until_ns.min(from + 300) {
                prop_assert_eq!(now.rate_bps, slow(t));
            }
            if now.until_ns != u64::MAX && !now.until_ns.is_multiple_of(length) {
                prop_assert_ne!(now.rate_bps, slow(now.until_ns), "few pieces");
            }
        }

        #[test]
        fn looping_is_periodic((rows, length) in rows(), t in 0..1_000u64, laps in any::<u64>()) {
            let curve = Curve::new(&rows, length, AtEnd::Loop).unwrap();
            let shift = laps % (u64::MAX / length - 1_000) * length;
            let (here, there) = (curve.at(t), curve.at(t + shift));
            prop_assert_eq!(here.rate_bps, there.rate_bps);
            prop_assert_eq!(here.until_ns == u64::MAX, there.until_ns == u64::MAX);
            if here.until_ns != u64::MAX {
                prop_assert_eq!(here.until_ns + shift, there.until_ns);
            }
            let lap = |from| curve.bytes(from, from + length);
            prop_assert_eq!(lap(t), lap(t + shift));
        }
    }

    #[test]
    fn the_end_of_time_is_answered() {
        let curve = Curve::new(&[(0, MAX_RATE_BPS), (1, 0)], 3, AtEnd::Loop).unwrap();
        for t in [u64::MAX, u64::MAX - 1, u64::MAX - 2] {
            assert!(curve.at(t).until_ns >= t);
        }
        let full = Curve::new(&[(0, MAX_RATE_BPS)], 1, AtEnd::Hold).unwrap();
        assert_eq!(full.at(7), Span { rate_bps: MAX_RATE_BPS, until_ns: u64::MAX });
        assert_eq!(full.bytes(0, u64::MAX), u64::MAX, "saturates: 2.3e22 bytes");
        assert_eq!(full.bytes(9, 3), 0);
    }

    #[test]
    fn bad_rows_are_refused_with_what_to_do() {
        let refuse = |rows: &[(u64, u64)], length, end| Curve::new(rows, length, end).unwrap_err();
        assert!(refuse(&[], 1, AtEnd::Loop).contains("no rows"));
        assert!(refuse(&[(1, 1)], 2, AtEnd::Loop).contains("start at 0"));
        assert!(refuse(&[(0, 1), (0, 2)], 2, AtEnd::Loop).contains("sort"));
        assert!(refuse(&[(0, 1), (5, 2)], 5, AtEnd::Loop).contains("over 5"));
        assert!(refuse(&[(0, MAX_RATE_BPS + 1)], 5, AtEnd::Loop).contains("10000000000001"));
        assert!(refuse(&[(0, 0), (1, 0)], 5, AtEnd::Loop).contains("0 throughout"));
        assert!(refuse(&[(0, 1), (1, 0)], 5, AtEnd::Hold).contains("hold for ever"));
    }

    #[test]
    fn the_mean_weighs_by_time() {
        let curve = Curve::new(&[(0, 100), (30, 0)], 40, AtEnd::Loop).unwrap();
        assert_eq!((curve.mean_bps(), curve.duration_ns()), (75.0, 40));
    }
}
