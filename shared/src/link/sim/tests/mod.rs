//! The simulated network against arithmetic, and against chance.

mod basics;
mod cell;
mod properties;
mod radio;

use std::time::Duration;

use super::*;
use crate::link::{
    profile::{Direction, Harq, Jitter, Outage},
    trace::{AtEnd, Trace},
    whatif::{Connection, Transfer, WhatIf},
};

/// `rate_bps` and `delay_ms` both ways, nothing else: no headers, no TCP.
fn plain(rate_bps: u64, delay_ms: f64) -> Profile {
    let mut profile = Profile::builtin("none").expect("built in");
    let queue_bytes = 200_000;
    let direction = Direction {
        rate_bps,
        delay_ms,
        jitter: Jitter::None,
        queue_bytes,
        burst_bytes: 0,
        harq: None,
    };
    (profile.uplink, profile.downlink) = (direction.clone(), direction);
    profile.packet.overhead_bytes = 0;
    profile.transport = Transport::Open;
    profile
}

fn tcp(profile: Profile) -> Profile {
    let transport =
        Transport::Tcp { initial_window: 10, handshake: true, slow_start_after_idle: true };
    Profile { transport, ..profile }
}

fn lab(profile: &Profile, seed: u64) -> (WhatIf, DeviceId, Connection) {
    let mut lab = WhatIf::new(Scheduler::RoundRobin);
    let device = lab.join(profile, seed);
    let connection = lab.connect(device).expect("connects");
    (lab, device, connection)
}

fn up(lab: &mut WhatIf, connection: Connection, bytes: u64) -> f64 {
    let transfer = Transfer { connection, way: Way::Uplink, bytes };
    lab.transfer(&[transfer]).expect("arrives")[0].as_secs_f64() * 1e3
}

#[track_caller]
fn close(measured: f64, expected: f64, tolerance: f64) {
    assert!(
        (measured / expected - 1.0).abs() <= tolerance,
        "measured {measured}, expected {expected} within {tolerance}"
    );
}
