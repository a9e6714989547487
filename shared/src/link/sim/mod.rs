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

mod capacity;
mod fading;
mod flow;
mod lane;
mod packet;
mod scheduler;
mod window;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    task::Waker,
};

use bytes::Bytes;

use self::{
    flow::{Answer, Flow, Stretch},
    lane::Lane,
    packet::{AckPacket, Kind, Packet},
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
/// A sender with an open window offers this many packets in its turn, while the queue is shorter
/// than that many bytes.
const TURN_PACKETS: usize = 12;
const TURN_BYTES: u32 = 32 << 10;

/// How long an acknowledgement may wait for data to ride on (Linux' least, 40 ms).
const HELD_ANSWER_NS: u64 = 40_000_000;

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
            let window = Window::new(&at.transport);
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

    // ── senders ──

    /// Offers packets of a flow while its windows allow.
    fn pump(&mut self, id: FlowId, now: u64) {
        let way = way(id);
        let mut turn = 0;
        while let Some(flow) = self.flows.get_mut(&id)
            && let Some(stretch) = flow.next_to_send()
            && let Some(device) = &mut self.devices[flow.device]
        {
            let (index, open) = (flow.device, flow.window.is_none());
            let lane = &mut device.lanes[way as usize];
            if open && (turn == TURN_PACKETS || !lane.has_room(TURN_BYTES)) {
                if !flow.waiting {
                    flow.waiting = true;
                    lane.waiting.push_back(id);
                }
                return;
            }
            turn += 1;
            let len = (stretch.end - stretch.start) as u32;
            let wire = len + device.packet_overhead;
            let ack = self.ride_along(id);
            let kind = Kind::Data { flow: id, start: stretch.start, len, ack };
            let packet = Packet { kind, wire, at: now };
            let dropped = !self.offer(way, index, packet, !open);
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.sent(stretch, now, dropped);
            }
            if dropped {
                self.set_timer(id, now);
            }
        }
    }

    fn set_timer(&mut self, id: FlowId, now: u64) {
        if let Some(flow) = self.flows.get_mut(&id)
            && !flow.timer_set
            && let Some(deadline) = flow.deadline(now)
        {
            flow.timer_set = true;
            self.queue_event(deadline, Event::Timer(id));
        }
    }

    fn timer(&mut self, id: FlowId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.timer_set = false;
        if flow.timed_out(now) {
            self.pump(id, now);
            self.set_timer(id, now);
        }
    }

    /// The acknowledgement of the reverse flow that data of this one can carry.
    fn ride_along(&mut self, id: FlowId) -> Option<AckPacket> {
        let reverse = self.flows.get_mut(&id.reverse())?;
        reverse.set_interactive();
        reverse.held_answer(id.reverse())
    }

    /// Nothing took the acknowledgement along in time.
    fn answer_late(&mut self, id: FlowId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let index = flow.device;
        if let Some(ack) = flow.held_answer(id) {
            self.send_ack(ack, index, now);
        }
    }

    fn send_ack(&mut self, ack: AckPacket, index: usize, at: u64) {
        let Some(device) = &self.devices[index] else { return };
        let packet = Packet { kind: Kind::Ack(ack), wire: device.packet_overhead.max(1), at };
        // Never dropped: acknowledgements are small, and what one says the next says again.
        self.offer(way(ack.flow).reverse(), index, packet, false);
    }

    fn offer(&mut self, way: Way, index: usize, packet: Packet, may_drop: bool) -> bool {
        let Some(device) = &mut self.devices[index] else { return false };
        let lane = &mut device.lanes[way as usize];
        let was_empty = lane.is_empty();
        if !lane.offer(packet, may_drop) {
            return false;
        }
        if was_empty {
            self.servers[way as usize].activate(index);
            self.request_serve(way, packet.at);
        }
        true
    }

    fn handshake(&mut self, uplink: FlowId, step: u8, now: u64) {
        let Some(flow) = self.flows.get(&uplink) else { return };
        let index = flow.device;
        let Some(device) = &self.devices[index] else { return };
        let kind = Kind::Handshake { uplink, step };
        let packet = Packet { kind, wire: device.packet_overhead.max(1), at: now };
        let way = if step == 1 { Way::Downlink } else { Way::Uplink };
        self.offer(way, index, packet, false);
    }

    // ── airtime ──

    fn request_serve(&mut self, way: Way, at: u64) {
        let server = &mut self.servers[way as usize];
        let at = at.max(server.free_at);
        if server.armed.is_none_or(|armed| armed > at) {
            server.armed = Some(at);
            self.queue_event(at, Event::Serve(way));
        }
    }

    /// Gives out airtime from `at` on, but not beyond `now` or the next event: what is written until
    /// then has its turn.
    fn serve(&mut self, way: Way, at: u64, now: u64) {
        let server = &mut self.servers[way as usize];
        if server.armed != Some(at) {
            return; // An earlier event has taken this one's place.
        }
        server.armed = None;
        loop {
            let Some(start) = self.find_candidates(way) else { return };
            let limit = now.min(self.events.peek().map_or(u64::MAX, |Reverse((at, ..))| *at));
            if start > limit.max(at) {
                self.request_serve(way, start);
                return;
            }
            let server = &self.servers[way as usize];
            let Some(next) = server.choose(&self.candidates, start) else { return };
            self.transmit(way, next);
        }
    }

    /// Fills `candidates` with the devices that can start first; gives the instant.
    fn find_candidates(&mut self, way: Way) -> Option<u64> {
        let server = &self.servers[way as usize];
        self.candidates.clear();
        let mut first = u64::MAX;
        for &index in &server.active {
            let Some(device) = &mut self.devices[index] else { continue };
            let lane = &mut device.lanes[way as usize];
            let Some(start) = lane.earliest_start(server.free_at) else { continue };
            if start < first {
                self.candidates.clear();
                first = start;
            }
            if start == first {
                let rate_bps = lane.rate_bps(start);
                self.candidates.push(Candidate { device: index, start, rate_bps });
            }
        }
        (!self.candidates.is_empty()).then_some(first)
    }

    fn transmit(&mut self, way: Way, next: Candidate) {
        let Candidate { device: index, start, .. } = next;
        let Some(device) = &mut self.devices[index] else { return };
        let lane = &mut device.lanes[way as usize];
        let before = lane.counters.wire_bytes;
        let end = lane.transmit(start);
        let bytes = (lane.counters.wire_bytes - before) as u32;
        let server = &mut self.servers[way as usize];
        server.free_at = end;
        server.account(index, bytes, start, end);
        if lane.is_empty() {
            server.deactivate(index);
        }
        self.arm_arrival(way, index);
        self.take_turns(way, index, start);
    }

    /// Lets flows that wait for room send, until there is none: some of them may be gone by now.
    fn take_turns(&mut self, way: Way, index: usize, now: u64) {
        let mut turns = match &self.devices[index] {
            Some(device) => device.lanes[way as usize].waiting.len(),
            None => 0,
        };
        while turns > 0
            && let Some(device) = &mut self.devices[index]
            && device.lanes[way as usize].has_room(TURN_BYTES)
            && let Some(id) = device.lanes[way as usize].waiting.pop_front()
        {
            turns -= 1;
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.waiting = false;
            }
            self.pump(id, now);
        }
    }

    // ── arrivals ──

    fn arm_arrival(&mut self, way: Way, index: usize) {
        if let Some(device) = &mut self.devices[index]
            && let Some(at) = device.lanes[way as usize].arm()
        {
            self.queue_event(at, Event::Arrival(way, index));
        }
    }

    fn land(&mut self, way: Way, index: usize, at: u64) {
        while let Some(device) = &mut self.devices[index]
            && let Some(packet) = device.lanes[way as usize].land(at)
        {
            match packet.kind {
                Kind::Data { flow, start, len, ack } => {
                    let end = start + u64::from(len);
                    self.data_arrived(flow, index, Stretch { start, end }, packet.at, at);
                    if let Some(ack) = ack {
                        self.ack_arrived(&ack, index, at);
                    }
                }
                Kind::Ack(ack) => self.ack_arrived(&ack, index, at),
                Kind::Handshake { uplink, step } => self.handshake_arrived(uplink, step, at),
            }
        }
        self.arm_arrival(way, index);
    }

    fn data_arrived(&mut self, id: FlowId, index: usize, stretch: Stretch, echo: u64, at: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = flow.delivered();
        if flow.arrived(stretch) {
            self.wakes.extend(flow.reader.take());
            if flow.window.is_none() {
                self.wakes.extend(flow.writer.take());
            }
        }
        let fresh = flow.delivered() - before;
        let answer = flow.answer(id, echo);
        let Some(device) = &mut self.devices[index] else { return };
        device.lanes[way(id) as usize].counters.delivered_bytes += fresh;
        match answer {
            Answer::Now(ack) => self.send_ack(ack, index, at),
            Answer::Later => self.queue_event(at + HELD_ANSWER_NS, Event::HeldAnswer(id)),
            Answer::None => {}
        }
    }

    fn ack_arrived(&mut self, ack: &AckPacket, index: usize, at: u64) {
        let Some(flow) = self.flows.get_mut(&ack.flow) else { return };
        flow.acknowledged(ack, at);
        if let Some(device) = &mut self.devices[index] {
            device.last_rtt_ns = flow.smoothed_rtt();
        }
        if flow.room().is_ok_and(|room| room > 0) {
            self.wakes.extend(flow.writer.take());
        }
        self.pump(ack.flow, at);
    }

    fn handshake_arrived(&mut self, uplink: FlowId, step: u8, at: u64) {
        let opens = match step {
            0 => return self.handshake(uplink, 1, at),
            1 => {
                self.handshake(uplink, 2, at);
                uplink
            }
            _ => uplink.reverse(),
        };
        if let Some(flow) = self.flows.get_mut(&opens) {
            flow.established = true;
            self.wakes.extend(flow.writer.take());
            self.pump(opens, at);
        }
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
