//! Which device of a cell may send next.

use std::{collections::HashMap, ops::Range};

/// How a base station divides its airtime between devices that have something to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduler {
    /// Equal airtime for all.
    #[default]
    RoundRobin,
    /// To whom the rate is best compared with what it got lately (Tse's proportional fair, as in
    /// Viswanath, Tse and Laroia, IEEE Trans. Inf. Theory 2002).
    ProportionalFair,
}

/// Over how long proportional fair looks back, ns.
const HORIZON_NS: f64 = 100e6;

/// One direction of a cell: the airtime that its devices share.
#[derive(Debug)]
pub(super) struct Server {
    scheduler: Scheduler,
    /// When the packet under way is through.
    pub(super) free_at: u64,
    /// The instant of the event that is queued to serve on.
    pub(super) armed: Option<u64>,
    /// Devices with something in their queue, in no order.
    pub(super) active: Vec<usize>,
    shares: HashMap<usize, Share>,
    /// Airtime that the device served last had had.
    least_airtime: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Airtime had, ns; a device that was silent does not save it up.
    airtime: u64,
    /// Average rate (bytes/ns) at `updated`, which then decays.
    average: f64,
    updated: u64,
}

/// A device that may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) device: usize,
    pub(super) start: u64,
    /// bit/s; none if it is not limited.
    pub(super) rate_bps: Option<u64>,
}

impl Server {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            free_at: 0,
            armed: None,
            active: Vec::new(),
            shares: HashMap::new(),
            least_airtime: 0,
        }
    }

    /// A device has something to send again.
    pub(super) fn activate(&mut self, device: usize) {
        self.active.push(device);
        let share = self.shares.entry(device).or_default();
        share.airtime = share.airtime.max(self.least_airtime);
    }

    /// A device has sent everything.
    pub(super) fn deactivate(&mut self, device: usize) {
        self.active.retain(|other| *other != device);
    }

    pub(super) fn forget(&mut self, device: usize) {
        self.deactivate(device);
        self.shares.remove(&device);
    }

    /// The one of `ready` (not empty) whose turn it is at `now`.
    pub(super) fn choose(&self, ready: &[Candidate], now: u64) -> Option<Candidate> {
        let share = |c: &Candidate| self.shares.get(&c.device).copied().unwrap_or_default();
        match self.scheduler {
            Scheduler::RoundRobin => {
                ready.iter().min_by_key(|c| (share(c).airtime, c.device)).copied()
            }
            Scheduler::ProportionalFair => {
                let merit = |c: &Candidate| {
                    let rate = c.rate_bps.map_or(f64::MAX, |rate| rate as f64);
                    rate / share(c).average_at(now).max(1e-12)
                };
                ready.iter().max_by(|a, b| merit(a).total_cmp(&merit(b))).copied()
            }
        }
    }

    /// `device` has sent `bytes`, which took that airtime.
    pub(super) fn account(&mut self, device: usize, bytes: u32, airtime: Range<u64>) {
        let share = self.shares.entry(device).or_default();
        self.least_airtime = self.least_airtime.max(share.airtime);
        share.airtime = share.airtime.saturating_add(airtime.end - airtime.start);
        share.average = share.average_at(airtime.end) + f64::from(bytes) / HORIZON_NS;
        share.updated = airtime.end;
    }
}

impl Share {
    fn average_at(&self, now: u64) -> f64 {
        self.average * (-(now.saturating_sub(self.updated) as f64) / HORIZON_NS).exp()
    }
}
