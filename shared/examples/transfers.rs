//! The work of `benches/link_vs_kernel/transfer.py`, in virtual time: what the simulation alone makes of
//! it, without sockets and whatever else this machine does.
//!
//!     cargo run --release -p cleave-shared --example transfers -- PROFILE SETTLE_S SEED
//!
//! reads cases `[bytes, streams, repetitions]` as JSON lines and answers with the times of each, ms.

use std::{error::Error, io, time::Duration};

use cleave_shared::link::{DeviceId, Profile, Scheduler, WhatIf};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

/// What a client tells the server before it falls silent, and the answer.
const HEADER: u64 = 8;
const ANSWER: u64 = 1;
/// Transfers begin at a random phase of whatever ticks on the way, up to this long.
const PHASE: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("{what} is missing"));
    let profile = Profile::find(&next("PROFILE")?, None)?;
    let settle = Duration::from_secs_f64(next("SETTLE_S")?.parse()?);
    let seed = next("SEED")?.parse()?;
    let mut lab = WhatIf::new(Scheduler::default());
    let device = lab.join(&profile, seed);
    let mut phases = StdRng::seed_from_u64(seed);
    for line in io::stdin().lines() {
        let (bytes, streams, repetitions): (u64, u64, u64) = serde_json::from_str(&line?)?;
        let times: Option<Vec<f64>> = (0..repetitions)
            .map(|_| {
                let settle = settle + PHASE.mul_f64(phases.random());
                transfer(&mut lab, device, bytes, streams, settle)
            })
            .map(|time| time.map(|time| time.as_secs_f64() * 1e3))
            .collect();
        let times = times.ok_or("the link lets nothing through")?;
        println!("{}", json!({ "size": bytes, "streams": streams, "ms": times }));
    }
    Ok(())
}

/// Opens connections one after the other, lets them fall silent, and sends on all at once.
fn transfer(
    lab: &mut WhatIf,
    device: DeviceId,
    bytes: u64,
    streams: u64,
    settle: Duration,
) -> Option<Duration> {
    let mut connections = Vec::new();
    for _ in 0..streams {
        let connection = lab.connect(device)?;
        lab.exchange(connection, HEADER, ANSWER)?;
        connections.push(connection);
    }
    lab.sleep(settle);
    let time = lab.exchanges(&connections, (bytes / streams).max(1), ANSWER);
    connections.into_iter().for_each(|connection| lab.disconnect(connection));
    time
}
