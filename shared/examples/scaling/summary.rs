//! What is said of a run.

use serde::Serialize;

use super::cell::Request;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// That count.
    pub requests: u64,
    pub offered_per_s: f64,
    /// Of those that were asked in the window.
    pub answered_per_s: f64,
    /// Share of them.
    pub refused: f64,
    /// Requests whose outcome nobody knew when the run ended, whether or not they count.
    pub under_way: u64,
    /// Share of the time in which threads computed.
    pub replicas: Utilisation,
    /// Share of the cells' rates that was on the air, headers and acknowledgements included; none if not limited.
    pub uplink: Option<Utilisation>,
    pub downlink: Option<Utilisation>,
    pub ms: Times,
}

/// Of many of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Utilisation {
    pub mean: f64,
    pub most: f64,
}

impl Utilisation {
    pub fn of(shares: impl Iterator<Item = f64>) -> Self {
        let (mut sum, mut count, mut most) = (0.0, 0.0_f64, 0.0_f64);
        for share in shares {
            sum += share;
            count += 1.0;
            most = most.max(share);
        }
        Self { mean: sum / count.max(1.0), most }
    }
}

/// The time of an answered request and its parts, ms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    pub total: Quantiles,
    pub uplink: Quantiles,
    pub wait: Quantiles,
    pub tail: Quantiles,
    pub downlink: Quantiles,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// The same of each request, ns.
#[derive(Debug, Default)]
pub struct Parts {
    total: Vec<u64>,
    uplink: Vec<u64>,
    wait: Vec<u64>,
    tail: Vec<u64>,
    downlink: Vec<u64>,
}

impl Parts {
    /// Its answer is there at `now`.
    pub fn add(&mut self, request: &Request, now: u64) {
        self.total.push(now - request.asked);
        self.uplink.push(request.arrived - request.asked);
        self.wait.push(request.began - request.arrived);
        self.tail.push(request.left - request.began);
        self.downlink.push(now - request.left);
    }

    pub fn len(&self) -> usize {
        self.total.len()
    }

    /// Puts them in order, each by itself.
    pub fn quantiles(&mut self) -> Times {
        Times {
            total: quantiles(&mut self.total),
            uplink: quantiles(&mut self.uplink),
            wait: quantiles(&mut self.wait),
            tail: quantiles(&mut self.tail),
            downlink: quantiles(&mut self.downlink),
        }
    }
}

fn quantiles(times: &mut [u64]) -> Quantiles {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else { return Quantiles::default() };
    let at = |share: f64| times[(share * last as f64).round() as usize] as f64 / 1e6;
    let sum: f64 = times.iter().map(|ns| *ns as f64).sum();
    Quantiles { mean: sum / times.len() as f64 / 1e6, p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}
