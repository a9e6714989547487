//! Many edges in cells of the simulated link, and the replicas of a cloud that answer them, in virtual time.
//! `benches/scaling` runs this and writes the report; `docs/scaling.md` has the model and its limits.
//!
//! ```text
//! scaling THREADS
//! ```
//!
//! reads scenarios, a JSON object a line, runs so many of them at once, and answers each with a JSON line as soon
//! as it is done.
//!
//! ```text
//!  edges ask ──▶ Cell: uplink ──▶ Replica: queue, threads ──▶ Cell: downlink ──▶ answered
//!  (Poisson)     (sim::Network)   (the one of this edge)      (the same Network)
//! ```
//!
//! `World` is one loop over one queue of events for all of this.

mod cell;
mod replica;
mod scenario;
mod summary;
#[cfg(test)]
mod tests;
mod world;

use std::{
    error::Error,
    io::{self, Write},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use cleave_shared::link::Profile;
use serde_json::json;

use self::{scenario::Scenario, world::World};

fn main() -> Result<(), Box<dyn Error>> {
    let threads: usize = std::env::args().nth(1).ok_or("scaling THREADS")?.parse()?;
    let mut scenarios: Vec<Scenario> = Vec::new();
    for line in io::stdin().lines() {
        let scenario: Scenario = serde_json::from_str(&line?)?;
        scenario.check()?;
        scenarios.push(scenario);
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let begin = |_| scope.spawn(|| work(&scenarios, &next));
        let workers: Vec<_> = (0..threads.max(1)).map(begin).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a simulation panicked".to_owned())?)
    })?;
    Ok(())
}

/// Runs scenarios that nobody else has begun.
fn work(scenarios: &[Scenario], next: &AtomicUsize) -> Result<(), String> {
    while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
        let profile = Profile::find(&scenario.profile, None).map_err(|e| e.to_string())?;
        let begin = Instant::now();
        let mut world = World::new(scenario, &profile);
        world.run();
        let line = json!({
            "name": scenario.name,
            "took_s": begin.elapsed().as_secs_f64(),
            "seen": world.summary(),
        });
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| e.to_string())?;
    }
    Ok(())
}
