//! The whole loop against arithmetic and against itself.
//!
//!     cargo nextest run --release -p cleave-shared --example scaling

use cleave_shared::link::{Profile, Transport};

use super::{scenario::Scenario, summary::Summary, world::World};

fn scenario() -> Scenario {
    Scenario {
        name: "test".into(),
        profile: "5g-midband".into(),
        cells: 4,
        edges_per_cell: 25,
        rate: 5.0,
        replicas: 2,
        threads: 2,
        queue: 64,
        service_s: vec![0.001, 0.002],
        up_bytes: 3_000,
        down_bytes: 200,
        aligned: false,
        warm_up_s: 1.0,
        seconds: 4.0,
        seed: 1,
    }
}

fn midband() -> Profile {
    Profile::builtin("5g-midband").expect("built in")
}

/// Nothing but a delay of 3 ms up and 2 ms down.
fn delays() -> Profile {
    let mut profile = Profile::builtin("none").expect("built in");
    profile.transport = Transport::Open;
    (profile.uplink.delay_ms, profile.downlink.delay_ms) = (3.0, 2.0);
    profile
}

fn seen(scenario: &Scenario, profile: &Profile) -> Summary {
    let mut world = World::new(scenario, profile);
    world.run();
    world.summary()
}

#[track_caller]
fn close(found: f64, expected: f64, share: f64) {
    assert!((found / expected - 1.0).abs() < share, "{found}, expected {expected}");
}

#[test]
fn every_request_is_answered_refused_or_under_way() {
    // A fifth of what two replicas can do, and four times as much.
    for (rate, overloaded) in [(5.0, false), (107.0, true)] {
        let scenario = Scenario { rate, up_bytes: 500, ..scenario() };
        let mut world = World::new(&scenario, &midband());
        world.run();
        assert_eq!(world.asked, world.answered + world.refused + world.under_way());
        assert_eq!(world.refused > 0, overloaded, "{} refused", world.refused);
        let summary = world.summary();
        // All that counted have an outcome: the run waits for them.
        let outcomes = summary.answered_per_s + summary.refused * summary.offered_per_s;
        close(outcomes, summary.offered_per_s, 1e-9);
        close(summary.offered_per_s, 100.0 * rate, 0.1);
        if overloaded {
            assert!(summary.replicas.mean > 0.95, "{:?}", summary.replicas);
        }
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let first = seen(&scenario(), &midband());
    assert_eq!(first, seen(&scenario(), &midband()));
    assert_ne!(first, seen(&Scenario { seed: 2, ..scenario() }, &midband()));
}

#[test]
fn replicas_without_a_radio_are_the_textbook_s_queue() {
    // M/D/1 at a load of 0.7: a request waits for 0.7 / (2 × 0.3) of its own time.
    let scenario = Scenario {
        cells: 5,
        edges_per_cell: 20,
        rate: 7.0,
        replicas: 1,
        threads: 1,
        queue: 10_000,
        service_s: vec![0.001],
        seconds: 200.0,
        ..scenario()
    };
    let summary = seen(&scenario, &delays());
    let (ms, refused) = (summary.ms, summary.refused);
    assert_eq!((ms.uplink.p50, ms.uplink.p99), (3.0, 3.0));
    assert_eq!((ms.downlink.p50, ms.downlink.p99), (2.0, 2.0));
    assert_eq!((ms.tail.p50, refused), (1.0, 0.0));
    close(ms.wait.mean, 0.7 / 0.6, 0.05);
    close(ms.total.mean, 3.0 + 2.0 + 1.0 + ms.wait.mean, 1e-6);
    close(summary.replicas.mean, 0.7, 0.02);
    assert_eq!(summary.uplink, None, "its rate is not limited");
}

#[test]
fn a_cell_that_is_full_is_slow_whatever_the_cloud_has() {
    // 25 edges × 200 × 3 kB are 120 Mbit/s, twice the cell's rate.
    let full = Scenario { rate: 200.0, replicas: 100, ..scenario() };
    let calm = Scenario { rate: 1.0, ..full.clone() };
    let (full, calm) = (seen(&full, &midband()), seen(&calm, &midband()));
    let share = |summary: &Summary| summary.uplink.map_or(0.0, |uplink| uplink.mean);
    assert!((0.9..1.01).contains(&share(&full)), "{:?}", full.uplink);
    assert!(share(&calm) < 0.02, "{:?}", calm.uplink);
    assert!(full.ms.total.p50 > 10.0 * calm.ms.total.p50, "{:?} {:?}", full.ms, calm.ms);
    assert!(full.replicas.mean < 0.5, "{:?}", full.replicas);
}
