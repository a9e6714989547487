use proptest::prelude::*;

use super::*;
use crate::plan::Curve;

/// Four stages of 10 ms on the edge and 1 ms in the cloud each; what crosses shrinks from 1 MB to 1 kB.
fn costs() -> Costs {
    let crossing = |codec: &str, bytes: u64| Crossing {
        codec: codec.into(),
        bytes,
        encode_ms: if codec == "f32" { 0.0 } else { 0.5 },
        decode_ms: 0.1,
    };
    let at = |bytes: u64| vec![crossing("f32", bytes), crossing("int8", bytes / 4)];
    Costs {
        head_ms: vec![0.0, 10.0, 20.0, 30.0, 40.0],
        tail_ms: vec![4.0, 3.0, 2.0, 1.0, 0.0],
        crossings: vec![at(600_000), at(1_000_000), at(10_000), at(1_000), Vec::new()],
        head_flops: vec![0.0, 1e9, 2e9, 3e9, 4e9],
        head_bytes: vec![0, 100, 200, 300, 400],
        output_bytes: 40,
    }
}

fn network(mbps: f64) -> Network {
    Network { up: Curve::line(5.0, mbps * 1e6), down: Curve::line(5.0, mbps * 1e6) }
}

fn limits(config: PlanConfig) -> Limits {
    Limits { config, queue_ms: 0.0, head_factor: 1.0, tail_factor: 1.0, accuracy: Vec::new() }
}

fn best(mbps: f64, config: PlanConfig) -> Choice {
    let found = plan(&costs(), &network(mbps), HostCost::default(), &limits(config));
    found.best().expect("a choice").choice.clone()
}

fn choice(split: usize, codec: &str) -> Choice {
    Choice { split, codec: Some(codec.into()) }
}

#[test]
fn a_fast_link_sends_early_and_a_slow_one_late() {
    let edge_only = Choice { split: 4, codec: None };
    assert_eq!(best(10_000.0, PlanConfig::default()), choice(0, "f32"));
    assert_eq!(best(500.0, PlanConfig::default()), choice(0, "int8"));
    assert_eq!(best(20.0, PlanConfig::default()), choice(2, "int8"));
    assert_eq!(best(0.05, PlanConfig::default()), edge_only);
}

#[test]
fn limits_forbid_and_say_why() {
    let floor = PlanConfig { min_split_point: 2, ..PlanConfig::default() };
    assert_eq!(best(10_000.0, floor), choice(2, "f32"));
    let memory = PlanConfig { edge_memory_bytes: Some(150), ..PlanConfig::default() };
    assert!(best(0.05, memory).split <= 1);
    let impossible = PlanConfig { deadline_ms: Some(1.0), ..PlanConfig::default() };
    let found = plan(&costs(), &network(1.0), HostCost::default(), &limits(impossible));
    assert!(found.best().is_none());
    assert!(found.why_not().contains("plan.deadline_ms is 1"), "{}", found.why_not());
}

#[test]
fn an_accuracy_floor_takes_only_what_was_measured() {
    let config = PlanConfig { accuracy_floor: Some(0.95), ..PlanConfig::default() };
    let known =
        |split_point, codec: &str, share| Accuracy { split_point, codec: codec.into(), share };
    let accuracy = vec![known(0, "f32", 0.97), known(0, "int8", 0.90), known(2, "int8", 0.96)];
    let limits = Limits { config, queue_ms: 0.0, head_factor: 1.0, tail_factor: 1.0, accuracy };
    let found = plan(&costs(), &network(500.0), HostCost::default(), &limits);
    let why = |split, codec| found.find(&choice(split, codec)).unwrap().forbidden.clone();
    assert!(why(0, "int8").unwrap().contains("0.9000"));
    assert!(why(1, "int8").unwrap().contains("unknown"));
    assert_eq!((why(2, "int8"), why(3, "f32")), (None, None));
}

#[test]
fn energy_and_cost_can_be_what_counts() {
    let minimise = Weights { latency: 0.0, energy: 1.0, cost: 0.0 };
    // A gigaflop is 400 mJ here: the radio is cheaper for everything.
    assert_eq!(best(500.0, PlanConfig { minimise, ..PlanConfig::default() }).split, 0);
    let minimise = Weights { latency: 0.0, energy: 0.0, cost: 1.0 };
    assert_eq!(best(500.0, PlanConfig { minimise, ..PlanConfig::default() }).split, 4);
}

#[test]
fn a_busy_cloud_drives_work_to_the_edge() {
    let at = |queue_ms| {
        let limits = Limits { queue_ms, ..limits(PlanConfig::default()) };
        let found = plan(&costs(), &network(10_000.0), HostCost::default(), &limits);
        found.best().unwrap().choice.split
    };
    assert_eq!((at(0.0), at(100.0)), (0, 4));
}

proptest! {
    /// The parts add up to the latency, and no allowed choice has a better score than the best.
    #[test]
    fn the_best_is_the_best(mbps in 0.01f64..1e4, queue_ms in 0.0f64..50.0, memory in 0u64..500) {
        let config = PlanConfig { edge_memory_bytes: Some(memory), ..PlanConfig::default() };
        let limits = Limits { config, queue_ms, head_factor: 1.0, tail_factor: 1.0, accuracy: Vec::new() };
        let found = plan(&costs(), &network(mbps), HostCost::default(), &limits);
        let best = found.best().unwrap();
        for predicted in &found.all {
            let parts: f64 = predicted.timing.parameters().iter().map(|(_, ms)| ms).sum();
            prop_assert!((parts - predicted.latency_ms()).abs() < 1e-9);
            let fits = costs().head_bytes[predicted.choice.split] <= memory;
            prop_assert_eq!(predicted.forbidden.is_none(), fits);
            prop_assert!(!fits || predicted.score >= best.score);
        }
    }
}
