//! The simulated network: pure, in virtual time.
//!
//! A discrete-event simulation of packets. It has no sockets, no threads and no clock: instants are
//! nanoseconds that the caller passes in, so the same calls give the same schedule, whether a clock
//! drives them (a live link) or a loop does (a simulated hour in seconds).
//!
//! ```text
//!  write ─▶ Flow ─ window ─▶ Lane queue ─▶ Server ─▶ in the air ─▶ Flow ─▶ take
//!           (TCP sender)     (drop-tail)   (airtime:  (delay, jitter,  (order,
//!              ▲                            capacity)  HARQ, RLC)      holes)
//!              └────────────── acknowledgements, over the other direction ◀┘
//! ```
//!
//! A device (an edge's radio) has a lane each way; all devices of a network share one cell, whose two
//! servers give out airtime. A link for one edge is a cell with one device.

mod airtime;
mod arrivals;
mod capacity;
mod cubic;
mod fading;
mod flow;
mod growth;
mod hystart;
mod lane;
mod packet;
mod receiver;
mod repair;
mod scheduler;
mod senders;
mod window;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    task::Waker,
};

use bytes::Bytes;

use self::{
    flow::Flow,
    lane::Lane,
    scheduler::{Candidate, Server},
    window::Window,
};
pub use self::{
    flow::{Failure, Taken},
    lane::LaneCounters,
    packet::FlowId,
    scheduler::Scheduler,
};
use super::{
    nr::Way,
    profile::{Profile, Transport},
};

/// IPv4, TCP and timestamps: what is not payload in a full packet.
const PACKET_HEADERS: u32 = 52;
/// Hosts count their timers in ticks (Linux' HZ of 1000).
const NS_PER_TICK: u64 = 1_000_000;
/// A sender with an open window offers this many packets in its turn, while the queue is shorter
/// than that many bytes.
const TURN_PACKETS: usize = 12;
const TURN_BYTES: u32 = 32 << 10;

/// Names a device of a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Serve(Way),
    Arrival(Way, usize),
    Timer(FlowId),
    HeldAnswer(FlowId),
}

#[derive(Debug)]
struct Device {
    lanes: [Lane; 2],
    packet_payload: u32,
    packet_overhead: u32,
    transport: Transport,
    /// Bytes that fill delay and queue of the larger direction.
    pipe: u64,
    last_rtt_ns: u64,
}

/// One device's state, for whoever watches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceStatus {
    pub uplink: LaneCounters,
    pub downlink: LaneCounters,
    /// Rates now, bit/s; none if not limited. Zero while the radio is silent or the slot is not ours.
    pub uplink_bps: Option<u64>,
    pub downlink_bps: Option<u64>,
    /// The last round trip that a sender measured, queues included; 0 before the first.
    pub rtt_ns: u64,
}

/// A cell and its devices.
#[derive(Debug)]
pub struct Network {
    devices: Vec<Option<Device>>,
    servers: [Server; 2],
    flows: HashMap<FlowId, Flow>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    queued_events: u64,
    next_flow: u64,
    wakes: Vec<Waker>,
    candidates: Vec<Candidate>,
    /// What landed together is one round of the hosts' work; senders that wait for its end.
    round: u64,
    throttled: Vec<FlowId>,
}

impl Network {
    pub fn new(scheduler: Scheduler) -> Self {
        Self {
            devices: Vec::new(),
            servers: [Server::new(scheduler), Server::new(scheduler)],
            flows: HashMap::new(),
            events: BinaryHeap::new(),
            queued_events: 0,
            next_flow: 0,
            wakes: Vec::new(),
            candidates: Vec::new(),
            round: 0,
            throttled: Vec::new(),
        }
    }

    // ── devices ──

    /// A device on that network; equal seeds give equal draws. The profile is taken as it is: those
    /// that come from files have been checked.
    pub fn add_device(&mut self, profile: &Profile, seed: u64) -> DeviceId {
        let lanes = [Way::Uplink, Way::Downlink].map(|way| Lane::new(profile, way, seed));
        let mut device = Device {
            lanes,
            packet_payload: 0,
            packet_overhead: 0,
            transport: Transport::Open,
            pipe: 0,
            last_rtt_ns: 0,
        };
        device.read(profile);
        self.devices.push(Some(device));
        DeviceId(self.devices.len() - 1)
    }

    /// Frees a device whose connections have all been removed.
    pub fn remove_device(&mut self, DeviceId(index): DeviceId) {
        self.servers.iter_mut().for_each(|server| server.forget(index));
        self.devices[index] = None;
    }

    /// Moves a device to another network. Packets under way keep their instants; all later ones, on
    /// open connections too, get the new ones.
    pub fn set_profile(&mut self, DeviceId(index): DeviceId, profile: &Profile, now: u64) {
        let Some(device) = &mut self.devices[index] else { return };
        device.read(profile);
        for lane in &mut device.lanes {
            lane.set_profile(profile, now);
        }
        for way in [Way::Uplink, Way::Downlink] {
            let Some(device) = &mut self.devices[index] else { return };
            let server = &mut self.servers[way as usize];
            if let Some((old_end, end)) = device.lanes[way as usize].hurry(now)
                && server.free_at == old_end
            {
                server.free_at = end;
            }
            self.arm_arrival(way, index);
            self.request_serve(way, now);
        }
    }

    pub fn status(&mut self, DeviceId(index): DeviceId, now: u64) -> DeviceStatus {
        let Some(device) = &mut self.devices[index] else { return DeviceStatus::default() };
        let rtt_ns = device.last_rtt_ns;
        let [up, down] = &mut device.lanes;
        let rate = |lane: &mut Lane| if lane.is_silent(now) { Some(0) } else { lane.rate_bps(now) };
        DeviceStatus {
            uplink: up.counters(now),
            downlink: down.counters(now),
            uplink_bps: rate(up),
            downlink_bps: rate(down),
            rtt_ns,
        }
    }

    // ── connections ──

    /// Opens a connection; its uplink flow is returned, the downlink flow is its reverse. Bytes may be
    /// written at once, and leave when the handshake is through.
    pub fn connect(&mut self, device: DeviceId, now: u64) -> FlowId {
        let uplink = FlowId(self.next_flow);
        self.next_flow += 2;
        let DeviceId(index) = device;
        let Some(at) = &self.devices[index] else { return uplink };
        let shakes = matches!(at.transport, Transport::Tcp { handshake: true, .. });
        for flow in [uplink, uplink.reverse()] {
            let window = Window::new(&at.transport, at.packet_payload);
            let mut new = Flow::new(index, at.packet_payload, window, at.pipe);
            new.established = !shakes;
            self.flows.insert(flow, new);
        }
        if shakes {
            self.handshake(uplink, 0, now);
        }
        uplink
    }

    pub fn is_established(&self, flow: FlowId) -> bool {
        self.flows.get(&flow).is_none_or(|flow| flow.established)
    }

    /// Bytes that may be written; zero: wait.
    pub fn room(&self, flow: FlowId) -> io::Result<usize> {
        self.flows.get(&flow).map_or(Err(io::ErrorKind::BrokenPipe.into()), Flow::room)
    }

    /// Gives bytes to the sender, at most [`Network::room`].
    pub fn write(&mut self, id: FlowId, bytes: Bytes, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let index = flow.device;
        let count = bytes.len() as u64;
        flow.write(bytes);
        if let Some(device) = &mut self.devices[index] {
            device.lanes[way(id) as usize].counters.accepted_bytes += count;
        }
        self.pump(id, now);
    }

    /// The writer's end of the stream, or its failure, which travels behind the bytes.
    pub fn finish(&mut self, id: FlowId, outcome: Result<(), Failure>, now: u64) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.finish(outcome);
            self.pump(id, now);
        }
    }

    /// Takes what has arrived, at most `limit` bytes.
    pub fn take(&mut self, id: FlowId, limit: usize, now: u64) -> Taken {
        let Some(flow) = self.flows.get_mut(&id) else { return Taken::End };
        let taken = flow.take(limit);
        if matches!(taken, Taken::Bytes(_)) {
            // The receive window has opened.
            self.pump(id, now);
        }
        taken
    }

    pub fn is_readable(&self, id: FlowId) -> bool {
        self.flows.get(&id).is_none_or(Flow::readable)
    }

    /// The reader's side has ended: writers hear of it.
    pub fn close(&mut self, id: FlowId, outcome: Result<(), Failure>) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.close(outcome);
            self.wakes.extend(flow.writer.take());
        }
    }

    pub fn closed(&self, id: FlowId) -> Option<Result<(), Failure>> {
        self.flows.get(&id).map_or(Some(Ok(())), |flow| flow.closed().cloned())
    }

    /// Bytes written and not yet taken.
    pub fn held(&self, id: FlowId) -> u64 {
        self.flows.get(&id).map_or(0, Flow::held)
    }

    /// Forgets a flow; its packets in the air come to nothing.
    pub fn remove(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(&id) {
            self.wakes.extend(flow.reader);
            self.wakes.extend(flow.writer);
        }
    }

    /// Woken when there is something to read.
    pub fn set_reader(&mut self, id: FlowId, waker: &Waker) {
        if let Some(flow) = self.flows.get_mut(&id) {
            keep(&mut flow.reader, waker);
        }
    }

    /// Woken when there is room, the connection is established, or the reader's side has ended.
    pub fn set_writer(&mut self, id: FlowId, waker: &Waker) {
        if let Some(flow) = self.flows.get_mut(&id) {
            keep(&mut flow.writer, waker);
        }
    }

    /// The tasks to wake; to be called after each change, outside any lock.
    pub fn take_wakes(&mut self, into: &mut Vec<Waker>) {
        into.append(&mut self.wakes);
    }

    // ── time ──

    /// When something happens next, if nothing is written before.
    pub fn next_event(&self) -> Option<u64> {
        let next = self.events.peek().map(|Reverse((at, ..))| *at);
        next.filter(|at| *at != u64::MAX)
    }

    /// Events that will happen if nothing more is written.
    pub fn pending_events(&self) -> usize {
        self.events.len()
    }

    /// Lets everything happen that is due by `now`, in order.
    pub fn advance(&mut self, now: u64) {
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= now
            && let Some(Reverse((at, _, event))) = self.events.pop()
        {
            match event {
                Event::Serve(way) => self.serve(way, at, now),
                Event::Arrival(way, device) => self.land(way, device, at),
                Event::Timer(flow) => self.timer(flow, at),
                Event::HeldAnswer(flow) => self.answer_late(flow, at),
            }
        }
    }

    fn queue_event(&mut self, at: u64, event: Event) {
        self.queued_events += 1;
        self.events.push(Reverse((at, self.queued_events, event)));
    }
}

impl Device {
    fn read(&mut self, profile: &Profile) {
        self.packet_payload = profile.packet.mtu_bytes.saturating_sub(PACKET_HEADERS).max(1);
        self.packet_overhead = profile.packet.overhead_bytes;
        self.transport = profile.transport.clone();
        self.pipe = profile.pipe_bytes();
    }
}

fn way(flow: FlowId) -> Way {
    if flow.0 & 1 == 0 { Way::Uplink } else { Way::Downlink }
}

fn keep(slot: &mut Option<Waker>, waker: &Waker) {
    match slot {
        Some(known) => known.clone_from(waker),
        None => *slot = Some(waker.clone()),
    }
}

#[cfg(test)]
mod tests;
