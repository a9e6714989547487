//! Devices that share a cell.

use super::*;

/// Rates (bytes) that `edges` saturating devices got of a cell in five seconds.
fn shares(scheduler: Scheduler, profiles: &[Profile], way: Way) -> Vec<f64> {
    let mut lab = WhatIf::new(scheduler);
    let transfers: Vec<(DeviceId, Transfer)> = profiles
        .iter()
        .enumerate()
        .map(|(seed, profile)| {
            let device = lab.join(profile, seed as u64);
            let connection = lab.connect(device).expect("connects");
            (device, Transfer { connection, way, bytes: u64::MAX })
        })
        .collect();
    let flows: Vec<Transfer> = transfers.iter().map(|(_, transfer)| *transfer).collect();
    lab.run_until(&flows, lab.now() + Duration::from_secs(5));
    let lane = |status: DeviceStatus| match way {
        Way::Uplink => status.uplink,
        Way::Downlink => status.downlink,
    };
    transfers.iter().map(|(d, _)| lane(lab.status(*d)).wire_bytes as f64).collect()
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|x| x * x).sum::<f64>())
}

#[test]
fn a_cell_is_shared_fairly_and_entirely() {
    for transport in [plain as fn(u64, f64) -> Profile, |rate, delay| tcp(plain(rate, delay))] {
        for count in [1, 2, 8, 64] {
            for way in [Way::Uplink, Way::Downlink] {
                let profiles = vec![transport(100_000_000, 5.0); count];
                for scheduler in [Scheduler::RoundRobin, Scheduler::ProportionalFair] {
                    let got = shares(scheduler, &profiles, way);
                    let capacity = 100e6 / 8.0 * 5.0;
                    close(got.iter().sum(), capacity, 0.02);
                    assert!(jain(&got) >= 0.99, "{count} edges, {scheduler:?}: {got:?}");
                }
            }
        }
    }
}

#[test]
fn round_robin_shares_airtime_and_not_bytes() {
    let got = shares(
        Scheduler::RoundRobin,
        &[plain(100_000_000, 5.0), plain(10_000_000, 5.0)],
        Way::Uplink,
    );
    close(got[0] / got[1], 10.0, 0.02);
    close(got[0], 100e6 / 8.0 * 2.5, 0.02);
}

#[test]
fn a_saved_burst_is_airtime_too() {
    let mut bursty = plain(100_000_000, 5.0);
    bursty.uplink.burst_bytes = 3_000;
    let got = shares(Scheduler::RoundRobin, &[bursty.clone(), bursty], Way::Uplink);
    close(got.iter().sum(), 100e6 / 8.0 * 5.0, 0.02);
    assert!(jain(&got) >= 0.99, "{got:?}");
}

#[test]
fn a_thousand_idle_devices_cost_little() {
    let mut lab = WhatIf::new(Scheduler::RoundRobin);
    let profile = tcp(plain(100_000_000, 5.0));
    let connections: Vec<Connection> = (0..1_000)
        .map(|seed| {
            let device = lab.join(&profile, seed);
            lab.connect(device).expect("connects")
        })
        .collect();
    lab.sleep(Duration::from_secs(1));
    assert_eq!(lab.pending_events(), 0, "idle devices keep nothing going");
    assert!(up(&mut lab, connections[500], 1_000_000) < 400.0);
}
