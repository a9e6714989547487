//! Who may send when: the servers give the cell's airtime out.

use std::cmp::Reverse;

use super::super::nr::Way;
use super::{Event, Network, TURN_BYTES, scheduler::Candidate};

impl Network {
    pub(super) fn request_serve(&mut self, way: Way, at: u64) {
        let server = &mut self.servers[way as usize];
        let at = at.max(server.free_at);
        if server.armed.is_none_or(|armed| armed > at) {
            server.armed = Some(at);
            self.queue_event(at, Event::Serve(way));
        }
    }

    /// Gives out airtime from `at` on, but not beyond `now` or the next event: what is written until
    /// then has its turn.
    pub(super) fn serve(&mut self, way: Way, at: u64, now: u64) {
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
    pub(super) fn find_candidates(&mut self, way: Way) -> Option<u64> {
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

    pub(super) fn transmit(&mut self, way: Way, next: Candidate) {
        let Candidate { device: index, start, .. } = next;
        let Some(device) = &mut self.devices[index] else { return };
        let lane = &mut device.lanes[way as usize];
        let before = lane.counters.wire_bytes;
        let airtime = lane.transmit(start, self.servers[way as usize].free_at);
        let bytes = (lane.counters.wire_bytes - before) as u32;
        let server = &mut self.servers[way as usize];
        server.free_at = airtime.end;
        server.account(index, bytes, airtime);
        if lane.is_empty() {
            server.deactivate(index);
        }
        self.arm_arrival(way, index);
        self.take_turns(way, index, start);
    }

    /// Lets flows that wait for room send, until there is none: some of them may be gone by now.
    pub(super) fn take_turns(&mut self, way: Way, index: usize, now: u64) {
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
}
