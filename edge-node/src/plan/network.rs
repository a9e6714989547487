//! What a transfer takes, by its size: curves, one for each direction.
//!
//! A curve of a simulated profile comes from the simulation itself in virtual time, slots, grants, slow
//! start and all, so it is no straight line. On a network that nobody knows it is a line until transfers
//! have been seen ([`super::estimate`]).

use std::time::Duration;

use cleave_shared::{
    link::{Profile, Scheduler, Transfer, Way, WhatIf},
    profile::Spread,
};

/// Bytes against ms, in order of bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve(Vec<(f64, f64)>);

impl Curve {
    /// A delay, and a rate.
    pub fn line(delay_ms: f64, bits_per_second: f64) -> Self {
        let far = 1e9;
        Self(vec![(0.0, delay_ms), (far, delay_ms + far * 8e3 / bits_per_second.max(1.0))])
    }

    /// Through these points.
    pub fn through(mut points: Vec<(f64, f64)>) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(points)
    }

    /// ms for so many bytes: on the line between the points beside it, or beyond the last ones.
    pub fn ms(&self, bytes: u64) -> f64 {
        let x = bytes as f64;
        let points = &self.0;
        let [.., _, _] = points[..] else { return points.first().map_or(0.0, |p| p.1) };
        let above = points.iter().position(|p| p.0 >= x).unwrap_or(points.len() - 1).max(1);
        let ((x0, y0), (x1, y1)) = (points[above - 1], points[above]);
        let slope = (y1 - y0) / (x1 - x0).max(f64::MIN_POSITIVE);
        if x < x0 { y0 } else { y0 + (x - x0) * slope }
    }

    /// Through measured points, of which noise may have made a larger transfer the quicker.
    pub fn rising(points: Vec<(f64, f64)>) -> Self {
        let mut curve = Self::through(points);
        let mut least = 0.0f64;
        for point in &mut curve.0 {
            point.1 = point.1.max(least);
            least = point.1;
        }
        curve
    }

    pub(super) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.0.iter().copied()
    }

    /// What does not depend on the size.
    pub fn delay_ms(&self) -> f64 {
        self.ms(1)
    }
}

/// Both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub up: Curve,
    pub down: Curve,
}

/// Sizes of a curve's points: from a packet on, this many in a factor of two.
const SMALLEST: f64 = 256.0;
const PER_OCTAVE: f64 = 2.0;
/// Transfers of a point; fewer of what takes long.
const TRIPS: usize = 61;
const LARGE: f64 = 500_000.0;
const TRIPS_OF_LARGE: usize = 7;
/// HTTP/2's headers, in a packet of their own.
const HEADERS: u64 = 150;
/// Added to the pause between two of them, so that they meet every phase of the radio's slots.
const PHASE: Duration = Duration::from_micros(211);

impl Network {
    /// The same with another rate, and the delays as they are.
    pub fn at_rate(&self, factor: f64) -> Self {
        let scale = |curve: &Curve| {
            let delay = curve.delay_ms();
            let of = |(bytes, ms): (f64, f64)| (bytes, delay + (ms - delay).max(0.0) / factor);
            Curve(curve.0.iter().copied().map(of).collect())
        };
        Self { up: scale(&self.up), down: scale(&self.down) }
    }

    /// Measured in the simulation of this profile, with a pause between two transfers; none if it lets
    /// nothing through.
    pub fn of_profile(profile: &Profile, most_bytes: u64, pause: Duration) -> Option<Self> {
        let of = |way| curve(profile, way, most_bytes as f64, pause);
        Some(Self { up: of(Way::Uplink)?, down: of(Way::Downlink)? })
    }
}

fn curve(profile: &Profile, way: Way, most: f64, pause: Duration) -> Option<Curve> {
    let mut lab = WhatIf::new(Scheduler::default());
    let device = lab.join(profile, 1);
    let connection = lab.connect(device)?;
    let steps = ((most / SMALLEST).max(1.0).log2() * PER_OCTAVE).ceil() as i32;
    let mut points = Vec::new();
    for step in 0..=steps + 1 {
        let bytes = SMALLEST * 2f64.powf(f64::from(step) / PER_OCTAVE);
        let trips = if bytes > LARGE { TRIPS_OF_LARGE } else { TRIPS };
        let mut times = Vec::with_capacity(trips);
        for trip in 0..trips {
            lab.sleep(pause + PHASE * trip as u32);
            let transfer = Transfer { connection, way, bytes: bytes as u64 };
            times.push(lab.message(transfer, HEADERS)?.as_secs_f64() * 1e3);
        }
        points.push((bytes, Spread::of(times).median_ms));
    }
    Some(Curve::through(points))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_a_line_between_its_points() {
        let curve = Curve::through(vec![(1000.0, 20.0), (100.0, 10.0), (2000.0, 25.0)]);
        assert_eq!(
            [10, 100, 550, 1000, 1500, 4000].map(|b| curve.ms(b)),
            [10.0, 10.0, 15.0, 20.0, 22.5, 35.0]
        );
        let line = Curve::line(5.0, 8e6);
        assert!((line.ms(1_000_000) - 1005.0).abs() < 1e-6);
    }

    #[test]
    fn a_profiles_curve_has_its_delay_and_its_rate() {
        let profile = Profile::builtin("lte").unwrap();
        let network = Network::of_profile(&profile, 4_000_000, Duration::from_millis(50)).unwrap();
        assert!((22.0..30.0).contains(&network.up.delay_ms()), "{}", network.up.delay_ms());
        // 15 Mbit/s up, 50 down.
        let per_megabyte = |curve: &Curve| curve.ms(4_000_000) - curve.ms(3_000_000);
        let up = per_megabyte(&network.up);
        assert!((520.0..620.0).contains(&up), "{up}");
        let down = per_megabyte(&network.down);
        assert!((155.0..200.0).contains(&down), "{down}");
    }
}
