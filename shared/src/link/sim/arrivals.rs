//! What packets do at the far end.

use super::super::nr::Way;
use super::{
    Event, Network,
    flow::Stretch,
    packet::{AckPacket, FlowId, Kind},
    receiver::{Answer, Arrived},
    way,
};

impl Network {
    pub(super) fn arm_arrival(&mut self, way: Way, index: usize) {
        if let Some(device) = &mut self.devices[index]
            && let Some(at) = device.lanes[way as usize].arm()
        {
            self.queue_event(at, Event::Arrival(way, index));
        }
    }

    pub(super) fn land(&mut self, way: Way, index: usize, at: u64) {
        while let Some(device) = &mut self.devices[index]
            && let Some(packet) = device.lanes[way as usize].land(at)
        {
            match packet.kind {
                Kind::Data { flow, start, len, order, stamp, ack } => {
                    let stretch = Stretch { start, end: start + u64::from(len) };
                    let arrived = Arrived { stretch, order, sent_at: packet.at, stamp };
                    self.data_arrived(flow, index, &arrived, at);
                    if let Some(ack) = ack {
                        self.ack_arrived(&ack, index, packet.at, at);
                    }
                }
                Kind::Ack(ack) => self.ack_arrived(&ack, index, packet.at, at),
                Kind::Handshake { uplink, step } => self.handshake_arrived(uplink, step, at),
            }
        }
        self.end_round(at);
        self.arm_arrival(way, index);
    }

    fn data_arrived(&mut self, id: FlowId, index: usize, packet: &Arrived, at: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let before = flow.delivered();
        let (readable, answer) = flow.arrived(id, packet, at);
        if readable {
            self.wakes.extend(flow.reader.take());
            if flow.window.is_none() {
                self.wakes.extend(flow.writer.take());
            }
        }
        let fresh = flow.delivered() - before;
        let Some(device) = &mut self.devices[index] else { return };
        device.lanes[way(id) as usize].counters.delivered_bytes += fresh;
        match answer {
            Answer::Now(ack) => self.send_ack(ack, index, at),
            Answer::At(later) => self.queue_event(later, Event::HeldAnswer(id)),
            Answer::None => {}
        }
    }

    pub(super) fn ack_arrived(&mut self, ack: &AckPacket, index: usize, sent_at: u64, at: u64) {
        let Some(flow) = self.flows.get_mut(&ack.flow) else { return };
        flow.acknowledged(ack, sent_at, at);
        if let Some(device) = &mut self.devices[index] {
            device.last_rtt_ns = flow.smoothed_rtt();
        }
        if flow.room().is_ok_and(|room| room > 0) {
            self.wakes.extend(flow.writer.take());
        }
        self.pump_within_round(ack.flow, at);
    }

    pub(super) fn handshake_arrived(&mut self, uplink: FlowId, step: u8, at: u64) {
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
