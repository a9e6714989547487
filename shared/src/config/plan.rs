//! `[plan]`: how `split_point = "auto"` is chosen.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    auto::{self, AUTO},
    check::{Refusal, not_negative, range},
};
use crate::{codec, profile::Request};

/// Where the model is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitPoint {
    Fixed(usize),
    /// The planner's choice; until it has chosen, all in the cloud.
    Auto {
        planned: usize,
    },
}

impl SplitPoint {
    /// Not planned yet.
    pub const AUTO: Self = Self::Auto { planned: 0 };

    /// Stages `0..` this run on the edge.
    pub fn stages(self) -> usize {
        match self {
            Self::Fixed(split) | Self::Auto { planned: split } => split,
        }
    }

    pub fn is_auto(self) -> bool {
        matches!(self, Self::Auto { .. })
    }
}

/// What is minimised, under which limits, and what may be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanConfig {
    /// Codecs that may be chosen for activations; empty: `codec.activation` only.
    pub codecs: Vec<String>,
    pub minimise: Weights,
    /// What a request is taken to be: samples, and the extent of what varies, such as the length of a
    /// sequence.
    pub batch: usize,
    pub length: usize,
    /// What lies between two transfers, ms: computing, and what the user does. After a silence of some 200 ms TCP
    /// begins slowly again.
    pub pause_ms: u64,
    /// Longest predicted end-to-end latency, ms.
    pub deadline_ms: Option<f64>,
    /// Least share of right answers, 0 to 1, of those measured by `edge-node profile --accuracy`.
    pub accuracy_floor: Option<f64>,
    /// Most bytes of weights on the edge.
    pub edge_memory_bytes: Option<u64>,
    /// Privacy floor: the fewest stages before the cut.
    pub min_split_point: usize,
    /// How much better another choice must be predicted to be, as a share, before it is taken.
    pub hysteresis: f64,
    /// What an idle link is probed with, bytes each way, and how often at most, s.
    pub probe_bytes: usize,
    pub probe_interval_s: u64,
    /// Most bytes of a transfer that tells, on an idle link, whether a choice with more bytes than were seen to cross
    /// is as good as predicted; 0: predictions are enough.
    pub confirm_bytes: usize,
    pub energy: Energy,
    pub cloud: CloudPrice,
}

/// What a unit of each counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weights {
    /// A ms of latency.
    pub latency: f64,
    /// A mJ of the edge's energy.
    pub energy: f64,
    /// A millionth of what `plan.cloud.price_per_hour` is in.
    pub cost: f64,
}

/// The edge's energy: computing, and the radio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Energy {
    pub joule_per_gflop: f64,
    /// The radio while it is active, W.
    pub radio_watt: f64,
    pub uplink_joule_per_megabyte: f64,
    pub downlink_joule_per_megabyte: f64,
}

/// What a compute thread of the cloud costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudPrice {
    pub price_per_hour: f64,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            codecs: Vec::new(),
            minimise: Weights::default(),
            batch: 1,
            length: 128,
            pause_ms: 50,
            deadline_ms: None,
            accuracy_floor: None,
            edge_memory_bytes: None,
            min_split_point: 0,
            hysteresis: 0.1,
            probe_bytes: 32 << 10,
            probe_interval_s: 10,
            confirm_bytes: 1 << 20,
            energy: Energy::default(),
            cloud: CloudPrice::default(),
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self { latency: 1.0, energy: 0.0, cost: 0.0 }
    }
}

impl Default for Energy {
    /// A Raspberry Pi 4's 4 W over its 10 GFLOP/s; LTE as Huang et al., MobiSys 2012, table 4.
    fn default() -> Self {
        Self {
            joule_per_gflop: 0.4,
            radio_watt: 1.288,
            uplink_joule_per_megabyte: 3.507,
            downlink_joule_per_megabyte: 0.416,
        }
    }
}

impl Default for CloudPrice {
    fn default() -> Self {
        Self { price_per_hour: 0.05 }
    }
}

/// TCP's window has closed after a silence of so long (RFC 6298's least timeout is 1 s, Linux' 200 ms).
pub const WINDOW_CLOSES: Duration = Duration::from_millis(200);
/// Passes that a request is measured with.
const ROUNDS: usize = 15;

impl PlanConfig {
    /// What is measured of a request.
    pub fn request(&self) -> Request {
        Request { batch: self.batch, length: self.length, rounds: ROUNDS, training: false }
    }

    /// Whether requests find TCP's window closed.
    pub fn is_cold(&self) -> bool {
        Duration::from_millis(self.pause_ms) >= WINDOW_CLOSES
    }

    /// A pause after which a transfer finds what requests find: a longer one would only let the link change meanwhile.
    pub fn pause(&self) -> Duration {
        Duration::from_millis(self.pause_ms).min(WINDOW_CLOSES.mul_f64(1.5))
    }

    /// The first value that is out of range.
    pub(super) fn check(&self, stages: usize) -> Result<(), Refusal> {
        for name in &self.codecs {
            codec::by_name(name).map_err(|e| ("plan.codecs".to_string(), e.to_string()))?;
        }
        self.check_weights()?;
        let Energy { joule_per_gflop, radio_watt, .. } = self.energy;
        let Energy { uplink_joule_per_megabyte, downlink_joule_per_megabyte, .. } = self.energy;
        not_negative("plan.energy.joule_per_gflop", joule_per_gflop)?;
        not_negative("plan.energy.radio_watt", radio_watt)?;
        not_negative("plan.energy.uplink_joule_per_megabyte", uplink_joule_per_megabyte)?;
        not_negative("plan.energy.downlink_joule_per_megabyte", downlink_joule_per_megabyte)?;
        not_negative("plan.cloud.price_per_hour", self.cloud.price_per_hour)?;
        if let Some(deadline) = self.deadline_ms {
            not_negative("plan.deadline_ms", deadline)?;
        }
        if let Some(floor) = self.accuracy_floor {
            range("plan.accuracy_floor", floor, 0.0..=1.0)?;
        }
        if !(0.0..1.0).contains(&self.hysteresis) {
            let problem = format!("{} is out of range; allowed: 0 to below 1", self.hysteresis);
            return Err(("plan.hysteresis".into(), problem));
        }
        range("plan.batch", self.batch as u64, 1..=4096)?;
        range("plan.length", self.length as u64, 1..=1 << 20)?;
        range("plan.min_split_point", self.min_split_point as u64, 0..=stages as u64)?;
        range("plan.probe_bytes", self.probe_bytes as u64, 1..=1 << 20)?;
        range("plan.confirm_bytes", self.confirm_bytes as u64, 0..=1 << 20)?;
        range("plan.pause_ms", self.pause_ms, 0..=60_000)?;
        range("plan.probe_interval_s", self.probe_interval_s, 1..=86_400)
    }

    fn check_weights(&self) -> Result<(), Refusal> {
        let Weights { latency, energy, cost } = self.minimise;
        let weights = [("latency", latency), ("energy", energy), ("cost", cost)];
        for (key, value) in weights {
            not_negative(&format!("plan.minimise.{key}"), value)?;
        }
        if weights.iter().any(|(_, value)| *value > 0.0) {
            return Ok(());
        }
        Err(("plan.minimise".into(), "all weights are 0: nothing would be minimised".into()))
    }
}

impl fmt::Display for SplitPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(split) => write!(f, "{split}"),
            Self::Auto { .. } => f.write_str(AUTO),
        }
    }
}

impl std::str::FromStr for SplitPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self::AUTO);
        }
        text.parse().map(Self::Fixed).map_err(|_| format!("{text:?} is no number and not \"auto\""))
    }
}

impl Serialize for SplitPoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fixed = if self.is_auto() { None } else { Some(self.stages()) };
        auto::serialize(fixed, serializer)
    }
}

impl<'de> Deserialize<'de> for SplitPoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fixed = auto::deserialize(deserializer, "a number of stages")?;
        Ok(fixed.map_or(Self::AUTO, Self::Fixed))
    }
}
