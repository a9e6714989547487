//! What goes into the queues: data within its windows, acknowledgements, handshakes.

use super::super::nr::Way;
use super::{
    Event, Network, TURN_BYTES, TURN_PACKETS,
    packet::{AckPacket, FlowId, Kind, Packet},
    way,
};

impl Network {
    /// Offers packets of a flow while its windows allow.
    pub(super) fn pump(&mut self, id: FlowId, now: u64) {
        self.send(id, now, false);
    }

    /// The same for a flow whose acknowledgement came, perhaps along with others'. Linux lets a sender have
    /// little in the host's own queues (tcp_small_queue_check()), which empty only after all that came
    /// together is dealt with. So the packets of several flows take turns.
    pub(super) fn pump_within_round(&mut self, id: FlowId, now: u64) {
        self.send(id, now, true);
    }

    /// All that landed together is dealt with: the hosts' queues are empty, and who waited for that sends on.
    pub(super) fn end_round(&mut self, now: u64) {
        self.round += 1;
        while !self.throttled.is_empty() {
            let waiting = std::mem::take(&mut self.throttled);
            waiting.into_iter().for_each(|id| self.send(id, now, true));
            self.round += 1;
        }
    }

    fn send(&mut self, id: FlowId, now: u64, small_queue: bool) {
        let way = way(id);
        let round = self.round;
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
            if small_queue && !flow.may_queue(round) {
                if !self.throttled.contains(&id) {
                    self.throttled.push(id);
                }
                break;
            }
            turn += 1;
            let len = (stretch.end - stretch.start) as u32;
            let wire = len + device.packet_overhead;
            let (order, stamp) = (flow.next_order(), flow.stamp());
            let ack = self.ride_along(id, now);
            let kind = Kind::Data { flow: id, start: stretch.start, len, order, stamp, ack };
            let packet = Packet { kind, wire, at: now };
            let dropped = !self.offer(way, index, packet, !open);
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.sent(stretch, now, dropped);
            }
        }
        if turn > 0
            && let Some(flow) = self.flows.get_mut(&id)
        {
            flow.had_turn();
        }
        self.set_timer(id, now);
    }

    /// Sees to it that the flow's deadline is met.
    fn set_timer(&mut self, id: FlowId, now: u64) {
        if let Some(flow) = self.flows.get_mut(&id)
            && let Some(deadline) = flow.deadline(now).map(|at| at.max(now + 1))
            && flow.repair.timer_at.is_none_or(|at| at > deadline)
        {
            flow.repair.timer_at = Some(deadline);
            self.queue_event(deadline, Event::Timer(id));
        }
    }

    pub(super) fn timer(&mut self, id: FlowId, now: u64) {
        if let Some(flow) = self.flows.get_mut(&id)
            && flow.repair.timer_at == Some(now)
        {
            flow.repair.timer_at = None;
            flow.timed_out(now);
            self.pump(id, now);
        }
    }

    /// The acknowledgement of the reverse flow that data of this one can carry.
    fn ride_along(&mut self, id: FlowId, now: u64) -> Option<AckPacket> {
        self.flows.get_mut(&id.reverse())?.ride_along(id.reverse(), now)
    }

    /// Nothing took the acknowledgement along in time.
    pub(super) fn answer_late(&mut self, id: FlowId, now: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let index = flow.device;
        if let Some(ack) = flow.late_answer(id, now) {
            self.send_ack(ack, index, now);
        }
    }

    pub(super) fn send_ack(&mut self, ack: AckPacket, index: usize, at: u64) {
        let Some(device) = &self.devices[index] else { return };
        let packet = Packet { kind: Kind::Ack(ack), wire: device.packet_overhead.max(1), at };
        // Never dropped: acknowledgements are small, and what one says the next says again.
        self.offer(way(ack.flow).reverse(), index, packet, false);
    }

    pub(super) fn offer(&mut self, way: Way, index: usize, packet: Packet, may_drop: bool) -> bool {
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

    pub(super) fn handshake(&mut self, uplink: FlowId, step: u8, now: u64) {
        let Some(flow) = self.flows.get(&uplink) else { return };
        let index = flow.device;
        let Some(device) = &self.devices[index] else { return };
        let kind = Kind::Handshake { uplink, step };
        let packet = Packet { kind, wire: device.packet_overhead.max(1), at: now };
        let way = if step == 1 { Way::Downlink } else { Way::Uplink };
        self.offer(way, index, packet, false);
    }
}
