//! Predicts every choice, and takes the best that the limits allow. A chain has few cuts: the search is
//! exact because it is complete.

use cleave_shared::config::{CloudPrice, Energy, PlanConfig, Weights};

use super::{Accuracy, Choice, Costs, Crossing, HostCost, Network};
use crate::serve::Timing;

/// What a request and a reply have besides tensors: agreement, names, shapes, HTTP/2's and gRPC's headers.
pub(super) const REQUEST_OVERHEAD: u64 = 420;
pub(super) const REPLY_OVERHEAD: u64 = 260;

/// What a plan minimises, under which limits, and the cloud's load.
#[derive(Debug, Clone)]
pub struct Limits {
    pub config: PlanConfig,
    /// Waiting for a compute thread of the cloud, ms.
    pub queue_ms: f64,
    /// How much slower the edge's head is than when it was measured, and the cloud's tail.
    pub head_factor: f64,
    pub tail_factor: f64,
    pub accuracy: Vec<Accuracy>,
}

impl Limits {
    /// While nobody uses the cloud, what is known of its load gets old: its queue soon, its speed later.
    pub fn forget(&mut self) {
        self.queue_ms *= 0.5;
        self.tail_factor += 0.1 * (1.0 - self.tail_factor);
    }
}

/// One choice and what it would cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    pub choice: Choice,
    /// Each part, ms.
    pub timing: Timing,
    /// Bytes up.
    pub bytes: u64,
    /// Of the edge, mJ.
    pub energy_mj: f64,
    /// Of the cloud, in millionths of the price's unit.
    pub cost: f64,
    /// What is minimised.
    pub score: f64,
    /// Whether the edge may hold its head.
    pub fits: bool,
    /// Which limit forbids it.
    pub forbidden: Option<String>,
}

impl Predicted {
    /// End to end, ms.
    pub fn latency_ms(&self) -> f64 {
        self.timing.total_ms()
    }
}

/// All choices, by split point, and the best of them.
#[derive(Debug, Clone)]
pub struct Plan {
    pub all: Vec<Predicted>,
    best: Option<usize>,
}

impl Plan {
    /// None if the limits forbid everything.
    pub fn best(&self) -> Option<&Predicted> {
        self.best.map(|i| &self.all[i])
    }

    pub fn find(&self, choice: &Choice) -> Option<&Predicted> {
        self.all.iter().find(|p| p.choice == *choice)
    }

    /// One line that says why nothing may be chosen.
    pub fn why_not(&self) -> String {
        let nearest = self.all.iter().min_by(|a, b| a.score.total_cmp(&b.score));
        let reason = nearest.and_then(|p| p.forbidden.as_deref()).unwrap_or("there are no cuts");
        format!("[plan]'s limits forbid every choice; of the best one: {reason}; relax a limit")
    }
}

/// Predicts all choices.
pub fn plan(costs: &Costs, network: &Network, host: HostCost, limits: &Limits) -> Plan {
    let mut all = Vec::new();
    for split in 0..costs.stages() {
        let crossings = costs.crossings[split].iter();
        all.extend(crossings.map(|c| across(costs, network, host, limits, split, c)));
    }
    all.push(on_the_edge(costs, limits));
    for predicted in &mut all {
        predicted.fits = fits(predicted.choice.split, costs, limits);
        predicted.score = score(predicted, limits.config.minimise);
        predicted.forbidden = forbidden(predicted, costs, limits);
    }
    let allowed = all.iter().enumerate().filter(|(_, p)| p.forbidden.is_none());
    let best = allowed.min_by(|(_, a), (_, b)| a.score.total_cmp(&b.score)).map(|(i, _)| i);
    Plan { all, best }
}

fn across(
    costs: &Costs,
    network: &Network,
    host: HostCost,
    limits: &Limits,
    split: usize,
    crossing: &Crossing,
) -> Predicted {
    let (up, down) = (crossing.bytes + REQUEST_OVERHEAD, costs.output_bytes + REPLY_OVERHEAD);
    // What the host adds is seen as time on the link, as the measured parts have it.
    let host_ms = host.ms(up + down);
    let tail_ms = limits.tail_factor * costs.tail_ms[split];
    let timing = Timing {
        head_ms: limits.head_factor * costs.head_ms[split],
        encode_ms: crossing.encode_ms,
        uplink_ms: network.up.ms(up) + host_ms * up as f64 / (up + down) as f64,
        tail_ms: tail_ms + limits.queue_ms,
        downlink_ms: network.down.ms(down) + host_ms * down as f64 / (up + down) as f64,
        decode_ms: crossing.decode_ms,
    };
    let choice = Choice { split, codec: Some(crossing.codec.clone()) };
    let energy_mj = compute_mj(costs, split, limits.config.energy)
        + radio_mj(limits.config.energy, &timing, up, down);
    let CloudPrice { price_per_hour } = limits.config.cloud;
    let cost = price_per_hour * 1e6 * (tail_ms + crossing.decode_ms) / 3.6e6;
    Predicted {
        choice,
        timing,
        bytes: up,
        energy_mj,
        cost,
        score: 0.0,
        fits: true,
        forbidden: None,
    }
}

fn on_the_edge(costs: &Costs, limits: &Limits) -> Predicted {
    let split = costs.stages();
    let head_ms = limits.head_factor * costs.head_ms[split];
    let timing = Timing { head_ms, ..Timing::default() };
    Predicted {
        choice: Choice { split, codec: None },
        timing,
        bytes: 0,
        energy_mj: compute_mj(costs, split, limits.config.energy),
        cost: 0.0,
        score: 0.0,
        fits: true,
        forbidden: None,
    }
}

pub(super) fn fits(split: usize, costs: &Costs, limits: &Limits) -> bool {
    limits.config.edge_memory_bytes.is_none_or(|most| costs.head_bytes[split] <= most)
}

fn compute_mj(costs: &Costs, split: usize, energy: Energy) -> f64 {
    costs.head_flops[split] / 1e9 * energy.joule_per_gflop * 1e3
}

/// A radio takes power while it is on, and energy for each byte (Huang et al., MobiSys 2012). It stays on
/// while the answer is awaited.
fn radio_mj(energy: Energy, timing: &Timing, up: u64, down: u64) -> f64 {
    let on_ms = timing.uplink_ms + timing.tail_ms + timing.downlink_ms;
    let joule = energy.uplink_joule_per_megabyte * up as f64 / 1e6
        + energy.downlink_joule_per_megabyte * down as f64 / 1e6;
    energy.radio_watt * on_ms + joule * 1e3
}

fn score(predicted: &Predicted, weights: Weights) -> f64 {
    weights.latency * predicted.latency_ms()
        + weights.energy * predicted.energy_mj
        + weights.cost * predicted.cost
}

fn forbidden(predicted: &Predicted, costs: &Costs, limits: &Limits) -> Option<String> {
    let PlanConfig { deadline_ms, accuracy_floor, edge_memory_bytes, min_split_point, .. } =
        limits.config;
    let Choice { split, codec } = &predicted.choice;
    let latency = predicted.latency_ms();
    if *split < min_split_point {
        return Some(format!(
            "split point {split} is below plan.min_split_point {min_split_point}"
        ));
    }
    if let Some(most) = edge_memory_bytes.filter(|_| !predicted.fits) {
        let bytes = costs.head_bytes[*split];
        return Some(format!("{bytes} bytes of weights, plan.edge_memory_bytes is {most}"));
    }
    if let Some(most) = deadline_ms.filter(|&most| latency > most) {
        return Some(format!("{latency:.1} ms, plan.deadline_ms is {most}"));
    }
    let (floor, codec) = (accuracy_floor?, codec.as_deref()?);
    match accuracy(&limits.accuracy, *split, codec) {
        Some(share) if share >= floor => None,
        Some(share) => Some(format!("accuracy {share:.4}, plan.accuracy_floor is {floor}")),
        None => Some(format!(
            "accuracy of {codec} is unknown, which plan.accuracy_floor needs: edge-node profile --accuracy"
        )),
    }
}

/// What was measured; what is exact has the accuracy of another exact choice.
fn accuracy(measured: &[Accuracy], split: usize, codec: &str) -> Option<f64> {
    let at = measured.iter().find(|a| a.split_point == split && a.codec == codec);
    let exact = || measured.iter().find(|a| a.codec == "f32" && codec == "f32");
    at.or_else(exact).map(|a| a.share)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
