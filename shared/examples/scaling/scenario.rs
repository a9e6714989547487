//! What is to be simulated.

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Comes back with the answer.
    pub name: String,
    /// A link profile by its name or path. Its rates are those of a cell, which its edges share.
    pub profile: String,
    pub cells: usize,
    pub edges_per_cell: usize,
    /// Requests of one edge, 1/s: a Poisson process of its own.
    pub rate: f64,
    pub replicas: usize,
    /// Of each replica: requests that are computed at once, and that may wait for it.
    pub threads: usize,
    pub queue: usize,
    /// How long a request occupies a thread, s: one of these, each as likely as the others.
    pub service_s: Vec<f64>,
    /// Of a request, and of its answer or refusal.
    pub up_bytes: u64,
    pub down_bytes: u64,
    /// Whether the slots of all cells begin at the same instant, seen from the cloud; otherwise each cell has its own
    /// phase, as when cells are at different distances.
    pub aligned: bool,
    /// What is asked in the `seconds` after the warm-up is what counts, virtual s.
    pub warm_up_s: f64,
    pub seconds: f64,
    pub seed: u64,
}

impl Scenario {
    pub fn check(&self) -> Result<(), String> {
        let positive = |what: &str, good: bool| match good {
            true => Ok(()),
            false => Err(format!("{}: {what} must be above 0", self.name)),
        };
        positive("cells", self.cells > 0)?;
        positive("edges_per_cell", self.edges_per_cell > 0)?;
        positive("rate", self.rate > 0.0)?;
        positive("replicas", self.replicas > 0)?;
        positive("threads", self.threads > 0)?;
        let services = !self.service_s.is_empty() && self.service_s.iter().all(|s| *s > 0.0);
        positive("service_s", services)?;
        positive("up_bytes", self.up_bytes > 0)?;
        positive("down_bytes", self.down_bytes > 0)?;
        positive("seconds", self.seconds > 0.0)
    }

    pub fn edges(&self) -> usize {
        self.cells * self.edges_per_cell
    }
}

/// Virtual instants are ns.
pub fn ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}
