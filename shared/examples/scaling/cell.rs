//! A cell of the link and the edges in it, each with one connection to the cloud, as an edge node has.

use std::collections::VecDeque;

use bytes::Bytes;
use cleave_shared::link::{
    DeviceId, Profile, Scheduler, Way,
    sim::{FlowId, Network, Taken},
};
use rand::{RngExt, rngs::StdRng};

/// A request on its way; instants in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub cell: usize,
    /// The edge's number in its cell.
    pub edge: usize,
    pub asked: u64,
    /// When all of it was at the cloud, when a thread began with it, and when its answer left.
    pub arrived: u64,
    pub began: u64,
    pub left: u64,
    /// How long it occupies a thread.
    pub service: u64,
    pub refused: bool,
}

/// What has arrived in a step: requests at the cloud, answers at their edges.
#[derive(Debug, Default)]
pub struct Arrived {
    pub up: Vec<Request>,
    pub down: Vec<Request>,
}

#[derive(Debug)]
pub struct Cell {
    network: Network,
    edges: Vec<Edge>,
    /// Edges with something under way on the link.
    open: Vec<usize>,
    /// The network's instants are later than the caller's by this.
    phase: u64,
    zeros: Bytes,
}

#[derive(Debug)]
struct Edge {
    device: DeviceId,
    up: Pipe,
    down: Pipe,
    open: bool,
}

/// Messages one behind the other, in one direction of a connection.
#[derive(Debug)]
struct Pipe {
    flow: FlowId,
    /// Bytes that the sender had no room for yet.
    unwritten: u64,
    /// Bytes that are missing of each.
    messages: VecDeque<(u64, Request)>,
}

impl Cell {
    /// Connects all edges at the caller's instant 0. `zeros`: what messages are made of.
    pub fn new(
        profile: &Profile,
        edges: usize,
        phase: u64,
        zeros: Bytes,
        draws: &mut StdRng,
    ) -> Self {
        let mut network = Network::new(Scheduler::default());
        let connect = |_| {
            let device = network.add_device(profile, draws.random());
            let uplink = network.connect(device, phase);
            let (up, down) = (Pipe::new(uplink), Pipe::new(uplink.reverse()));
            Edge { device, up, down, open: false }
        };
        let edges = (0..edges).map(connect).collect();
        Self { network, edges, open: Vec::new(), phase, zeros }
    }

    /// The edge sends a request of so many bytes.
    pub fn ask(&mut self, request: Request, bytes: u64, now: u64) {
        self.send(Way::Uplink, request, bytes, now);
    }

    /// The cloud sends the answer.
    pub fn answer(&mut self, request: Request, bytes: u64, now: u64) {
        self.send(Way::Downlink, request, bytes, now);
    }

    fn send(&mut self, way: Way, request: Request, bytes: u64, now: u64) {
        let edge = &mut self.edges[request.edge];
        let pipe = if way == Way::Uplink { &mut edge.up } else { &mut edge.down };
        pipe.messages.push_back((bytes, request));
        pipe.unwritten += bytes;
        pipe.write(&mut self.network, &self.zeros, now + self.phase);
        if !edge.open {
            edge.open = true;
            self.open.push(request.edge);
        }
    }

    /// When something happens in the cell next, if nothing is sent before.
    pub fn next_event(&self) -> Option<u64> {
        self.network.next_event().map(|at| at.saturating_sub(self.phase))
    }

    /// Lets everything happen that is due by `now`.
    pub fn step(&mut self, now: u64, arrived: &mut Arrived) {
        let at = now + self.phase;
        self.network.advance(at);
        let Self { network, edges, open, zeros, .. } = self;
        open.retain(|&index| {
            let edge = &mut edges[index];
            edge.up.write(network, zeros, at);
            edge.up.read(network, at, &mut arrived.up);
            edge.down.write(network, zeros, at);
            edge.down.read(network, at, &mut arrived.down);
            edge.open = !edge.up.messages.is_empty() || !edge.down.messages.is_empty();
            edge.open
        });
    }

    /// Bytes on the air in that direction since the beginning, headers and acknowledgements included.
    pub fn wire_bytes(&mut self, way: Way, now: u64) -> u64 {
        let at = now + self.phase;
        let Self { network, edges, .. } = self;
        let lane = |edge: &Edge| {
            let status = network.status(edge.device, at);
            if way == Way::Uplink { status.uplink } else { status.downlink }
        };
        edges.iter().map(lane).map(|lane| lane.wire_bytes).sum()
    }

    /// Requests and answers that have not arrived yet.
    pub fn under_way(&self) -> usize {
        self.edges.iter().map(|edge| edge.up.messages.len() + edge.down.messages.len()).sum()
    }
}

impl Pipe {
    fn new(flow: FlowId) -> Self {
        Self { flow, unwritten: 0, messages: VecDeque::new() }
    }

    fn write(&mut self, network: &mut Network, zeros: &Bytes, at: u64) {
        while self.unwritten > 0 {
            let room = network.room(self.flow).unwrap_or(0) as u64;
            let count = room.min(self.unwritten).min(zeros.len() as u64);
            if count == 0 {
                return;
            }
            network.write(self.flow, zeros.slice(..count as usize), at);
            self.unwritten -= count;
        }
    }

    fn read(&mut self, network: &mut Network, at: u64, arrived: &mut Vec<Request>) {
        while !self.messages.is_empty()
            && let Taken::Bytes(bytes) = network.take(self.flow, usize::MAX, at)
        {
            let mut count = bytes.len() as u64;
            while count > 0
                && let Some((missing, request)) = self.messages.front_mut()
            {
                let part = count.min(*missing);
                count -= part;
                *missing -= part;
                if *missing == 0 {
                    arrived.push(*request);
                    self.messages.pop_front();
                }
            }
        }
    }
}
