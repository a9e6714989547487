//! What the radio adds to the time in the air: jitter, HARQ and RLC retransmissions, outages.
//!
//! In acknowledged mode nothing is lost on the radio (TS 38.322 clause 5.2.3, 5.3): a block that is not
//! decoded comes later, and all that follows waits for it. So errors are delays here, as TCP sees them.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::super::profile::{Harq, Jitter, Outage};

const NS_PER_MS: f64 = 1e6;
/// Where the normal distribution of the jitter is cut off, in standard deviations.
const NORMAL_CUT: f64 = 3.0;

/// Draws the jitter of each packet.
#[derive(Debug)]
pub(super) struct JitterDraws {
    law: Jitter,
    rng: StdRng,
    /// Box and Muller's method makes two at a time.
    spare: Option<f64>,
    next_sample: usize,
}

impl JitterDraws {
    pub(super) fn new(law: Jitter, seed: u64) -> Self {
        Self { law, rng: StdRng::seed_from_u64(seed), spare: None, next_sample: 0 }
    }

    pub(super) fn set(&mut self, law: Jitter) {
        (self.law, self.next_sample) = (law, 0);
    }

    /// Delay of a packet whose mean is `delay_ns`, never negative.
    pub(super) fn travel(&mut self, delay_ns: f64) -> u64 {
        let offset = match self.law {
            Jitter::None => return delay_ns as u64,
            Jitter::Normal { std_ms } => self.truncated(std_ms * NS_PER_MS, delay_ns),
            Jitter::Pareto { mean_ms, shape } => self.pareto(mean_ms * NS_PER_MS, shape),
            Jitter::Samples(ref samples) if samples.is_empty() => 0.0,
            Jitter::Samples(ref samples) => {
                let sample = samples[self.next_sample % samples.len()];
                self.next_sample = (self.next_sample + 1) % samples.len();
                sample * NS_PER_MS
            }
        };
        (delay_ns + offset).max(0.0) as u64
    }

    /// Symmetric, so that the mean stays the profile's delay.
    fn truncated(&mut self, std_ns: f64, delay_ns: f64) -> f64 {
        let cut = (NORMAL_CUT * std_ns).min(delay_ns);
        if cut <= 0.0 {
            return 0.0;
        }
        // A valid profile (deviation <= delay) keeps two draws in three or more.
        for _ in 0..16 {
            let offset = self.standard_normal() * std_ns;
            if offset.abs() <= cut {
                return offset;
            }
        }
        0.0
    }

    fn standard_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.rng.random::<f64>()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// A Lomax draw (Pareto of type II, from zero) of that mean.
    fn pareto(&mut self, mean_ns: f64, shape: f64) -> f64 {
        let scale = mean_ns * (shape - 1.0);
        scale * ((1.0 - self.rng.random::<f64>()).powf(-1.0 / shape) - 1.0)
    }
}

/// Block errors and what repairing them takes.
#[derive(Debug)]
pub(super) struct BlockErrors {
    harq: Option<Harq>,
    rng: StdRng,
    /// Bytes that still belong to the transport block drawn last, and its delay.
    left: u32,
    delay_ns: u64,
}

/// How a block got through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repair {
    pub(super) harq_rounds: u32,
    pub(super) rlc: bool,
}

impl BlockErrors {
    pub(super) fn new(harq: Option<Harq>, seed: u64) -> Self {
        Self { harq, rng: StdRng::seed_from_u64(seed), left: 0, delay_ns: 0 }
    }

    pub(super) fn set(&mut self, harq: Option<Harq>) {
        (self.harq, self.left) = (harq, 0);
    }

    /// The delay that repair adds to the next `bytes`; a block begins anew after silence. The second
    /// value is what happened to the blocks that began with these bytes.
    pub(super) fn delay(&mut self, bytes: u32, idle: bool) -> (u64, Repair) {
        let mut repair = Repair::default();
        let Some(harq) = self.harq.clone() else { return (0, repair) };
        let block = harq.block_bytes.max(1);
        if idle {
            self.left = 0;
        }
        let mut bytes = bytes;
        let mut worst = if self.left > 0 { self.delay_ns } else { 0 };
        while bytes > self.left {
            bytes -= self.left;
            self.left = block;
            self.delay_ns = self.draw(&harq, &mut repair);
            worst = worst.max(self.delay_ns);
        }
        self.left -= bytes;
        (worst, repair)
    }

    fn draw(&mut self, harq: &Harq, repair: &mut Repair) -> u64 {
        let mut error = harq.bler;
        let mut rounds = 0;
        while self.rng.random::<f64>() < error {
            if rounds == harq.max_rounds {
                repair.rlc = true;
                repair.harq_rounds += rounds;
                let ms = f64::from(rounds) * harq.round_ms + harq.rlc_ms;
                return (ms * NS_PER_MS) as u64;
            }
            rounds += 1;
            error *= harq.combining_gain;
        }
        repair.harq_rounds += rounds;
        (f64::from(rounds) * harq.round_ms * NS_PER_MS) as u64
    }
}

/// Handovers and blockages: the times at which the radio is silent. Both directions of a device draw
/// from equal seeds, and so are silent together.
#[derive(Debug)]
pub(super) struct Outages {
    law: Option<Outage>,
    rng: StdRng,
    from: u64,
    until: u64,
    /// All silence up to `from`, ns.
    silent_ns: u64,
}

impl Outages {
    pub(super) fn new(law: Option<Outage>, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        let mut outages = Self { law: None, rng, from: u64::MAX, until: u64::MAX, silent_ns: 0 };
        outages.set(law, 0);
        outages
    }

    pub(super) fn set(&mut self, law: Option<Outage>, now: u64) {
        self.law = law;
        (self.from, self.until) = (u64::MAX, now);
        self.next();
    }

    /// Draws the next outage, which begins after the end of the last one.
    fn next(&mut self) {
        let Some(law) = &self.law else { return };
        let gap_ns = -(1.0 - self.rng.random::<f64>()).ln() * law.every_s * 1e9;
        let spread = law.spread_ms * (2.0 * self.rng.random::<f64>() - 1.0);
        let silence_ns = (law.duration_ms + spread).max(0.0) * NS_PER_MS;
        self.from = self.until.saturating_add((gap_ns as u64).max(1));
        self.until = self.from.saturating_add(silence_ns as u64);
    }

    /// Until when the radio is silent, if it is at `t`; `t` may lie a little in the past.
    pub(super) fn silent_until(&mut self, t: u64) -> Option<u64> {
        while self.law.is_some() && self.until <= t && self.until != u64::MAX {
            self.silent_ns += self.until - self.from;
            self.next();
        }
        (self.from <= t && t < self.until).then_some(self.until)
    }

    /// All silence until `t`, ns.
    pub(super) fn silence(&mut self, t: u64) -> u64 {
        let now = if self.silent_until(t).is_some() { t - self.from } else { 0 };
        self.silent_ns + now
    }
}
