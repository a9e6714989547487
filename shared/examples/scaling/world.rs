//! All cells and all replicas, on one virtual clock.
//!
//! One queue has the events of all of them, so that nothing is ever late: a cell is advanced to its own next event
//! and no further, what arrives there is at its replica at that very instant, and an answer is written to the cell
//! at the instant at which it leaves. There is no window of time in which cells and cloud do not see each other, and
//! so no error of the coupling.

use std::{cmp::Reverse, collections::BinaryHeap, mem, ops::Range};

use bytes::Bytes;
use cleave_shared::link::{Profile, Way};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    cell::{Arrived, Cell, Request},
    replica::{Offer, Replica},
    scenario::{Scenario, ns},
    summary::{Parts, Summary, Utilisation},
};

/// Places are drawn apart from requests, so that the same edges ask the same at the same time however many
/// replicas there are.
const PLACES_SALT: u64 = 0x9E37_79B9_7F4A_7C15;
/// A cell's phase is below this, ns; every period of slots and grants of the profiles divides it.
const PHASE: u64 = 20_000_000;
/// How long after the last request that counts it is waited for, ns: an edge's `deadline_ms`.
const PATIENCE: u64 = 5_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Some edge asks.
    Ask,
    Cell(usize),
    /// A thread of the replica is done.
    Done(usize, Request),
    /// What counts begins or ends.
    Mark,
}

#[derive(Debug)]
pub struct World<'a> {
    scenario: &'a Scenario,
    cells: Vec<Cell>,
    /// The instant for which an event of the cell is queued.
    planned: Vec<Option<u64>>,
    replicas: Vec<Replica<Request>>,
    /// The replica of each edge.
    pinned: Vec<usize>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    queued_events: u64,
    draws: StdRng,
    service: Vec<u64>,
    /// Requests that are asked meanwhile count.
    window: Range<u64>,
    /// Bit/s that a cell can carry, 0: not limited.
    rates: [u64; 2],
    arrived: Arrived,
    pub asked: u64,
    pub answered: u64,
    pub refused: u64,
    counted: Counted,
}

/// Of the requests that count.
#[derive(Debug, Default)]
struct Counted {
    asked: u64,
    refused: u64,
    /// Of those that were answered.
    parts: Parts,
    /// How long the threads of each replica computed within the window, ns.
    busy: Vec<u64>,
    /// Bytes on the air of each cell, up and down, at the beginning and at the end.
    wire: Vec<Vec<[u64; 2]>>,
}

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario, profile: &Profile) -> Self {
        let mut places = StdRng::seed_from_u64(scenario.seed ^ PLACES_SALT);
        let longest = scenario.up_bytes.max(scenario.down_bytes);
        let zeros = Bytes::from(vec![0; longest as usize]);
        let phases: Vec<u64> = (0..scenario.cells)
            .map(|_| places.random_range(0..PHASE))
            .map(|phase| if scenario.aligned { 0 } else { phase })
            .collect();
        let cells: Vec<Cell> = phases
            .into_iter()
            .map(|phase| {
                Cell::new(profile, scenario.edges_per_cell, phase, zeros.clone(), &mut places)
            })
            .collect();
        let pinned = (0..scenario.edges()).map(|_| places.random_range(0..scenario.replicas));
        let start = ns(scenario.warm_up_s);
        Self {
            planned: vec![None; cells.len()],
            replicas: (0..scenario.replicas)
                .map(|_| Replica::new(scenario.threads, scenario.queue))
                .collect(),
            pinned: pinned.collect(),
            events: BinaryHeap::new(),
            queued_events: 0,
            draws: StdRng::seed_from_u64(scenario.seed),
            service: scenario.service_s.iter().map(|s| ns(*s)).collect(),
            window: start..start + ns(scenario.seconds),
            rates: [profile.uplink.rate_bps, profile.downlink.rate_bps],
            arrived: Arrived::default(),
            asked: 0,
            answered: 0,
            refused: 0,
            counted: Counted { busy: vec![0; scenario.replicas], ..Counted::default() },
            cells,
            scenario,
        }
    }

    /// Until all requests that count are answered or refused, or for as long as an edge would wait. Edges ask on
    /// until then: the last ones find the load that all others found.
    pub fn run(&mut self) {
        for cell in 0..self.cells.len() {
            self.plan(cell);
        }
        self.queue(self.window.start, Event::Mark);
        self.queue(self.window.end, Event::Mark);
        self.queue_ask(0);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            let over = now > self.window.end && self.outstanding() == 0;
            if over || now > self.window.end + PATIENCE {
                return;
            }
            match event {
                Event::Ask => self.ask(now),
                Event::Cell(cell) => self.step(cell, now),
                Event::Done(replica, request) => self.done(replica, request, now),
                Event::Mark => self.mark(now),
            }
        }
    }

    /// Requests that count and whose outcome is not known yet.
    fn outstanding(&self) -> u64 {
        self.counted.asked - self.counted.refused - self.counted.parts.len() as u64
    }

    /// All requests that are somewhere, whether or not they count.
    pub fn under_way(&self) -> u64 {
        let in_cells: usize = self.cells.iter().map(Cell::under_way).sum();
        let in_replicas: usize = self.replicas.iter().map(Replica::held).sum();
        (in_cells + in_replicas) as u64
    }

    fn queue(&mut self, at: u64, event: Event) {
        self.queued_events += 1;
        self.events.push(Reverse((at, self.queued_events, event)));
    }

    /// The processes of all edges together are one, of which each request is any edge's.
    fn queue_ask(&mut self, now: u64) {
        let mean_s = 1.0 / (self.scenario.rate * self.scenario.edges() as f64);
        let pause_s = -mean_s * (1.0 - self.draws.random::<f64>()).ln();
        self.queue(now + ns(pause_s), Event::Ask);
    }

    /// Sees to it that the cell's next event happens.
    fn plan(&mut self, cell: usize) {
        if let Some(at) = self.cells[cell].next_event()
            && self.planned[cell].is_none_or(|planned| planned > at)
        {
            self.planned[cell] = Some(at);
            self.queue(at, Event::Cell(cell));
        }
    }

    // ── the way of a request ──

    fn ask(&mut self, now: u64) {
        let who = self.draws.random_range(0..self.pinned.len());
        let service = self.service[self.draws.random_range(0..self.service.len())];
        let per_cell = self.scenario.edges_per_cell;
        let (cell, edge) = (who / per_cell, who % per_cell);
        let request = Request {
            cell,
            edge,
            asked: now,
            arrived: 0,
            began: 0,
            left: 0,
            service,
            refused: false,
        };
        self.asked += 1;
        self.counted.asked += u64::from(self.window.contains(&now));
        self.cells[cell].ask(request, self.scenario.up_bytes, now);
        self.plan(cell);
        self.queue_ask(now);
    }

    fn step(&mut self, cell: usize, now: u64) {
        if self.planned[cell] != Some(now) {
            return; // An earlier event has taken this one's place.
        }
        self.planned[cell] = None;
        let mut arrived = mem::take(&mut self.arrived);
        self.cells[cell].step(now, &mut arrived);
        for request in arrived.down.drain(..) {
            self.heard(&request, now);
        }
        for request in arrived.up.drain(..) {
            self.arrive(request, now);
        }
        self.arrived = arrived;
        self.plan(cell);
    }

    fn arrive(&mut self, mut request: Request, now: u64) {
        let replica = self.pinned[request.cell * self.scenario.edges_per_cell + request.edge];
        request.arrived = now;
        match self.replicas[replica].offer(request) {
            Offer::Begins(request) => self.begin(replica, request, now),
            Offer::Waits => {}
            Offer::Refused(mut request) => {
                request.refused = true;
                request.began = now;
                self.answer(request, now);
            }
        }
    }

    fn begin(&mut self, replica: usize, mut request: Request, now: u64) {
        request.began = now;
        let end = now + request.service;
        let (from, to) = (now.max(self.window.start), end.min(self.window.end));
        self.counted.busy[replica] += to.saturating_sub(from);
        self.queue(end, Event::Done(replica, request));
    }

    fn done(&mut self, replica: usize, request: Request, now: u64) {
        self.answer(request, now);
        if let Some(next) = self.replicas[replica].finish() {
            self.begin(replica, next, now);
        }
    }

    fn answer(&mut self, mut request: Request, now: u64) {
        request.left = now;
        self.cells[request.cell].answer(request, self.scenario.down_bytes, now);
        self.plan(request.cell);
    }

    fn heard(&mut self, request: &Request, now: u64) {
        self.answered += u64::from(!request.refused);
        self.refused += u64::from(request.refused);
        if !self.window.contains(&request.asked) {
            return;
        }
        if request.refused {
            self.counted.refused += 1;
        } else {
            self.counted.parts.add(request, now);
        }
    }

    // ── what was seen ──

    fn mark(&mut self, now: u64) {
        let both = |cell: &mut Cell| {
            [cell.wire_bytes(Way::Uplink, now), cell.wire_bytes(Way::Downlink, now)]
        };
        self.counted.wire.push(self.cells.iter_mut().map(both).collect());
    }

    pub fn summary(&mut self) -> Summary {
        let (seconds, under_way) = (self.scenario.seconds, self.under_way());
        let counted = &mut self.counted;
        let asked = counted.asked.max(1) as f64;
        let threads_ns = self.scenario.threads as f64 * seconds * 1e9;
        let air = |way: Way| {
            let rate = self.rates[way as usize];
            let [begin, end] = &counted.wire[..] else { return None };
            let carried = begin.iter().zip(end).map(|(begin, end)| {
                let bytes = end[way as usize] - begin[way as usize];
                bytes as f64 * 8.0 / (rate as f64 * seconds)
            });
            (rate > 0).then(|| Utilisation::of(carried))
        };
        Summary {
            requests: counted.asked,
            offered_per_s: counted.asked as f64 / seconds,
            answered_per_s: counted.parts.len() as f64 / seconds,
            refused: counted.refused as f64 / asked,
            under_way,
            replicas: Utilisation::of(counted.busy.iter().map(|busy| *busy as f64 / threads_ns)),
            uplink: air(Way::Uplink),
            downlink: air(Way::Downlink),
            ms: counted.parts.quantiles(),
        }
    }
}
