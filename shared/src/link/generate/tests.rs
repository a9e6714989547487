//! What a generated trace must be: the same every time, and plausible.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn csv(trace: &Trace) -> Vec<u8> {
    let mut bytes = Vec::new();
    trace.write_csv(&mut bytes).unwrap();
    bytes
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/traces").join(name)
}

fn named(name: &str) -> Scenario {
    Scenario::named(name).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for name in Scenario::NAMES {
        let make = |seed| csv(&generate(&named(name), seed, 3, 100).unwrap());
        assert_eq!(make(5), make(5));
        assert_ne!(make(5), make(6));
    }
}

#[test]
fn committed_traces_are_what_their_commands_make() {
    for name in Scenario::NAMES {
        let scenario = named(name);
        let mut made = provenance(&scenario, 1, 60, 100).into_bytes();
        made.extend(csv(&generate(&scenario, 1, 60, 100).unwrap()));
        let path = committed(&format!("{name}.csv"));
        let held = fs::read(&path).unwrap();
        assert!(held == made, "{}: not what the generator makes", path.display());
        let read = Trace::read_csv(&path, AtEnd::Loop).unwrap();
        assert_eq!((read.name.as_str(), read.uplink.duration_ns()), (name, 60_000_000_000));
    }
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let pair = generate(&named("lowband-drive"), 1, 15, 10).unwrap();
    pair.write_mahimahi(&mut up, &mut down).unwrap();
    for (made, name) in [(up, "lowband-drive.up"), (down, "lowband-drive.down")] {
        assert!(fs::read(committed(name)).unwrap() == made, "{name}: not what is made");
    }
}

/// Over twenty seeds: mean Mbit/s up and down, and the share of rows without downlink.
fn statistics(name: &str) -> (f64, f64, f64) {
    let (mut up, mut down, mut silent, mut rows) = (0.0, 0.0, 0, 0);
    for seed in 0..20 {
        let trace = generate(&named(name), seed, 60, 100).unwrap();
        up += trace.uplink.mean_bps() / 1e6;
        down += trace.downlink.mean_bps() / 1e6;
        silent += trace.downlink.rows().filter(|row| row.1 == 0).count();
        rows += trace.downlink.rows().count();
    }
    (up / 20.0, down / 20.0, silent as f64 / rows as f64)
}

/// The orders of magnitude that published averages have (see the link's profiles).
#[test]
fn rates_are_plausible_and_only_narrow_beams_are_often_interrupted() {
    for (name, up_mbps, down_mbps, silent) in [
        ("midband-walk", 25.0..70.0, 250.0..650.0, 0.0..0.001),
        ("midband-drive", 20.0..50.0, 250.0..650.0, 0.0..0.002),
        ("mmwave-walk", 60.0..180.0, 400.0..1_100.0, 0.003..0.06),
        ("lowband-drive", 8.0..25.0, 30.0..80.0, 0.0..0.002),
    ] {
        let seen = statistics(name);
        assert!(up_mbps.contains(&seen.0), "{name}: {seen:?}");
        assert!(down_mbps.contains(&seen.1), "{name}: {seen:?}");
        assert!(silent.contains(&seen.2), "{name}: {seen:?}");
    }
}

#[test]
fn the_round_trip_grows_as_the_uplink_fades() {
    let scenario = named("midband-walk");
    let best = radio::best_bps(&scenario, &scenario.uplink);
    assert_eq!(round_trip_ms(&scenario, best), scenario.rtt_ms);
    assert_eq!(round_trip_ms(&scenario, 0.0), scenario.rtt_ms + scenario.weak_rtt_ms);
    assert!(round_trip_ms(&scenario, best / 2.0) > scenario.rtt_ms);
}

#[test]
fn steps_that_do_not_fill_the_time_are_refused() {
    for (seconds, step_ms) in [(0, 100), (1, 0), (1, 300), (1, 1_000), (100_000, 1)] {
        let refused = generate(&named("midband-walk"), 1, seconds, step_ms).unwrap_err();
        assert!(refused.to_string().contains("; take 2 to"), "{refused}");
    }
}

#[test]
fn a_trace_that_carries_nothing_is_refused() {
    let mut deaf = named("midband-walk");
    deaf.antenna_gain_db = -200.0;
    let refused = generate(&deaf, 1, 1, 100).unwrap_err().to_string();
    assert!(refused.starts_with("midband-walk: the rate is 0 throughout"), "{refused}");
}
