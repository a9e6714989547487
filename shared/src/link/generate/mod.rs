//! Traces made from a seed: a phone moves through cells, and the rate follows from what of
//! the signal arrives. For experiments that need a network nobody has to be trusted for:
//! whoever has the seed has the trace.
//!
//! ```text
//!  mobility ─▶ site (×7) ─▶ handover ─▶ radio ───────────────────▶ a row of the trace
//!  position    path loss,   who serves  signal / (noise + others)   rates averaged over
//!              shadowing,   the phone   ─▶ CQI ─▶ bit/s             the step, round trip
//!              sight, people
//! ```
//!
//! The figures are in `scenario`, the formulas' sources beside the formulas. It is a model of
//! how rates vary with place and time, not of a certain network. Left out: other users coming
//! and going (a constant share is taken), street layout, sectors, the far rings of cells,
//! errors and age of CQI reports, radio sleep.
//!
//! The arithmetic is f64 and the rates are rounded to 1000 bit/s, so that a mathematical
//! library that differs in a last bit does not show.

mod draw;
mod handover;
mod mobility;
mod modulation;
mod propagation;
mod radio;
mod scenario;
mod site;

use std::sync::Arc;

use super::trace::{AtEnd, Curve, Series, Trace, TraceError};
use draw::Draws;
use handover::Serving;
use mobility::Walk;
use radio::Rates;
use site::Site;

pub use modulation::Modulation;
pub use propagation::Environment;
pub use scenario::{Blockage, Scenario, Side};

/// Longest time between two evaluations of the model, ms.
const TICK_MS: u32 = 10;
/// Rates are rounded to this, bit/s.
const GRAIN_BPS: f64 = 1_000.0;
/// Most rows of a trace: a day in steps of 10 ms is 8.6 million.
const MAX_ROWS: u64 = 10_000_000;
/// Streams of random numbers; the sites have those from `SITES` on.
const MOBILITY: u64 = 0;
const FADING: u64 = 1;
const HANDOVER: u64 = 2;
const SITES: u64 = 16;
const LIGHT_MPS: f64 = 3.0e8;
/// Even around a phone at rest something moves, m/s: chosen by us.
const STIR_MPS: f64 = 0.5;

/// A trace of `seconds` in rows of `step_ms`, which loops. The same arguments give the same
/// trace.
///
/// Refused when the rows do not fill the time, and when a direction never carries anything.
pub fn generate(
    scenario: &Scenario,
    seed: u64,
    seconds: u32,
    step_ms: u32,
) -> Result<Trace, TraceError> {
    let length_ms = u64::from(seconds) * 1_000;
    let count = length_ms.checked_div(u64::from(step_ms)).unwrap_or(0);
    if !(2..=MAX_ROWS).contains(&count) || count * u64::from(step_ms) != length_ms {
        let what = format!("{seconds} s in steps of {step_ms} ms");
        let remedy = format!("take 2 to {MAX_ROWS} steps that fill the time");
        return Err(TraceError::new(scenario.name, what, remedy));
    }
    let mut phone = Phone::new(scenario, seed);
    let (mut up, mut down, mut rtt) = (Vec::new(), Vec::new(), Vec::new());
    for start_ms in (0..count).map(|row| row * u64::from(step_ms)) {
        let rates = phone.step(step_ms);
        let start_ns = start_ms * 1_000_000;
        up.push((start_ns, rounded(rates.uplink_bps)));
        down.push((start_ns, rounded(rates.downlink_bps)));
        rtt.push((start_ns, round_trip_ms(scenario, rates.uplink_bps)));
    }
    let length_ns = length_ms * 1_000_000;
    let curve = |rows: Vec<(u64, u64)>| {
        let curve = Curve::new(&rows, length_ns, AtEnd::Loop).map(Arc::new);
        curve.map_err(|what| TraceError::new(scenario.name, what, "or take another seed"))
    };
    let rtt = Series::new(rtt, length_ns, AtEnd::Loop);
    Ok(Trace { name: scenario.name.to_owned(), uplink: curve(up)?, downlink: curve(down)?, rtt })
}

/// The comment to write before a generated CSV: the command that makes it again.
pub fn provenance(scenario: &Scenario, seed: u64, seconds: u32, step_ms: u32) -> String {
    let name = scenario.name;
    format!(
        "# edge-node trace --scenario {name} --seed {seed} --seconds {seconds} --step-ms {step_ms}\n"
    )
}

fn rounded(bps: f64) -> u64 {
    ((bps / GRAIN_BPS).round() * GRAIN_BPS) as u64
}

/// Longer the less the uplink carries, quadratically: chosen by us. To 0.1 ms.
fn round_trip_ms(scenario: &Scenario, uplink_bps: f64) -> f64 {
    let missing = 1.0 - uplink_bps / radio::best_bps(scenario, &scenario.uplink);
    let ms = scenario.rtt_ms + scenario.weak_rtt_ms * missing.max(0.0).powi(2);
    (ms * 10.0).round() / 10.0
}

/// The phone among its sites.
struct Phone<'a> {
    scenario: &'a Scenario,
    walk: Walk,
    sites: Vec<Site>,
    serving: Serving,
    draws: Draws,
    /// Unit-variance fast fading of the serving signal.
    fading: f64,
}

impl<'a> Phone<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let walk = Walk::new(
            Draws::new(seed, MOBILITY),
            scenario.roam_m,
            scenario.speeds_mps,
            scenario.longest_pause_s,
        );
        let site = |(i, at)| Site::new(scenario, Draws::new(seed, SITES + i), at);
        let mut draws = Draws::new(seed, FADING);
        let fading = draws.normal();
        Self {
            scenario,
            walk,
            sites: (0..).zip(grid(scenario.site_distance_m)).map(site).collect(),
            serving: Serving::new(Draws::new(seed, HANDOVER)),
            draws,
            fading,
        }
    }

    /// Mean rates over the next `step_ms`.
    fn step(&mut self, step_ms: u32) -> Rates {
        let ticks = step_ms.div_ceil(TICK_MS);
        let tick_s = f64::from(step_ms) / 1e3 / f64::from(ticks);
        let mut mean = Rates { uplink_bps: 0.0, downlink_bps: 0.0 };
        for _ in 0..ticks {
            let now = self.tick(tick_s);
            mean.uplink_bps += now.uplink_bps / f64::from(ticks);
            mean.downlink_bps += now.downlink_bps / f64::from(ticks);
        }
        mean
    }

    fn tick(&mut self, dt_s: f64) -> Rates {
        let moved_m = self.walk.advance(dt_s);
        let at = self.walk.position_m();
        for site in &mut self.sites {
            site.advance(at, moved_m, dt_s);
        }
        let losses: Vec<f64> = self.sites.iter().map(Site::loss_db).collect();
        let serving = self.serving.advance(&losses, dt_s);
        self.fade(dt_s);
        if self.serving.in_gap() {
            return Rates { uplink_bps: 0.0, downlink_bps: 0.0 };
        }
        radio::rates(self.scenario, &losses, serving, self.scenario.fading_db * self.fading)
    }

    /// Fading forgets within the coherence time, 0.423 over the largest Doppler shift
    /// (Rappaport, "Wireless Communications", section on Clarke's model).
    fn fade(&mut self, dt_s: f64) {
        let speed = self.walk.speed_mps().max(STIR_MPS);
        let doppler_hz = speed * self.scenario.frequency_ghz * 1e9 / LIGHT_MPS;
        let kept = (-dt_s * doppler_hz / 0.423).exp();
        self.fading = self.draws.correlated(self.fading, kept);
    }
}

/// One site in the middle and the six around it.
fn grid(distance_m: f64) -> Vec<(f64, f64)> {
    let ring = (0..6).map(|i| f64::from(i) * std::f64::consts::FRAC_PI_3);
    let around = ring.map(|angle| (distance_m * angle.cos(), distance_m * angle.sin()));
    std::iter::once((0.0, 0.0)).chain(around).collect()
}

#[cfg(test)]
mod tests;
