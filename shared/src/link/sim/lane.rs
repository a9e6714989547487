//! One direction of one device: its queue, and what happens to a packet between queue and far end.

use std::{collections::VecDeque, ops::Range};

use super::{
    super::{
        nr::{Air, Way},
        profile::Profile,
        trace::Series,
    },
    capacity::Capacity,
    fading::{BlockErrors, JitterDraws, Outages},
    packet::{FlowId, Packet},
};

/// What each random process is seeded with, so that none follows another.
const JITTER_SALT: u64 = 0x9E37_79B9_7F4A_7C15;
const HARQ_SALT: u64 = 0xC2B2_AE3D_27D4_EB4F;
const DOWNLINK_SALT: u64 = 0x1656_67B1_9E37_79F9;
const OUTAGE_SALT: u64 = 0x27D4_EB2F_1656_67C5;

/// What one direction of a device has carried; all totals since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaneCounters {
    /// Bytes accepted from writers; some may still be queued or in the air.
    pub accepted_bytes: u64,
    /// Bytes that have arrived at the far end, repetitions not counted.
    pub delivered_bytes: u64,
    /// Packets carried, headers and acknowledgements included, and their bytes.
    pub packets: u64,
    pub wire_bytes: u64,
    /// Packets that found the queue full.
    pub dropped_packets: u64,
    pub harq_retransmissions: u64,
    pub rlc_retransmissions: u64,
    /// Bytes in the queue now, and the most there ever were.
    pub queue_bytes: u64,
    pub most_queue_bytes: u64,
    /// What carried packets waited in the queue: all together, the longest, the last, ns.
    pub queued_ns: u64,
    pub longest_queued_ns: u64,
    pub last_queued_ns: u64,
    /// How long the radio was silent, ns.
    pub outage_ns: u64,
}

/// Delay over time: constant, or half of a trace's round trip.
#[derive(Debug)]
struct Delay {
    constant_ns: f64,
    round_trip: Option<Series>,
}

impl Delay {
    fn new(profile: &Profile, way: Way) -> Self {
        let direction = profile.direction(way);
        let round_trip = profile.trace.as_ref().and_then(|trace| trace.rtt.clone());
        Self { constant_ns: direction.delay_ms * 1e6, round_trip }
    }

    fn at(&self, t: u64) -> f64 {
        match &self.round_trip {
            Some(series) => series.at(t) * 1e6 / 2.0,
            None => self.constant_ns,
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) way: Way,
    pub(super) capacity: Capacity,
    delay: Delay,
    jitter: JitterDraws,
    errors: BlockErrors,
    outages: Outages,
    air: Option<Air>,
    queue: VecDeque<Packet>,
    queued_bytes: u64,
    limit: u64,
    /// Until then the device has no grant.
    granted_at: u64,
    /// What it may save up while it is idle, bytes: a token bucket's depth.
    burst_bytes: u64,
    /// When its last packet's bytes were through, as the bucket counts: with a burst it may lie before
    /// the packet itself.
    last_end: u64,
    last_arrival: u64,
    /// In the air, in the order of their arrival.
    flying: VecDeque<(u64, Packet)>,
    /// An event is queued for the first of them.
    armed: bool,
    /// Flows that wait for room in the queue.
    pub(super) waiting: VecDeque<FlowId>,
    pub(super) counters: LaneCounters,
}

impl Lane {
    pub(super) fn new(profile: &Profile, way: Way, seed: u64) -> Self {
        let own = match way {
            Way::Uplink => seed,
            Way::Downlink => seed ^ DOWNLINK_SALT,
        };
        let direction = profile.direction(way);
        Self {
            way,
            capacity: Capacity::new(profile, way),
            delay: Delay::new(profile, way),
            jitter: JitterDraws::new(direction.jitter.clone(), own ^ JITTER_SALT),
            errors: BlockErrors::new(direction.harq.clone(), own ^ HARQ_SALT),
            // The same seed both ways: an outage silences the radio.
            outages: Outages::new(profile.outage.clone(), seed ^ OUTAGE_SALT),
            air: profile.air.clone(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            limit: direction.queue_bytes,
            granted_at: 0,
            burst_bytes: direction.burst_bytes,
            last_end: 0,
            last_arrival: 0,
            flying: VecDeque::new(),
            armed: false,
            waiting: VecDeque::new(),
            counters: LaneCounters::default(),
        }
    }

    /// Later packets get the new profile's treatment; order is kept across the change.
    pub(super) fn set_profile(&mut self, profile: &Profile, now: u64) {
        let direction = profile.direction(self.way);
        self.capacity = Capacity::new(profile, self.way);
        self.delay = Delay::new(profile, self.way);
        self.jitter.set(direction.jitter.clone());
        self.errors.set(direction.harq.clone());
        self.outages.set(profile.outage.clone(), now);
        self.air = profile.air.clone();
        (self.limit, self.burst_bytes) = (direction.queue_bytes, direction.burst_bytes);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn has_room(&self, wire: u32) -> bool {
        self.queue.is_empty() || self.queued_bytes + u64::from(wire) <= self.limit
    }

    /// Puts a packet at the end of the queue. False if it had no room: dropped.
    pub(super) fn offer(&mut self, packet: Packet, may_drop: bool) -> bool {
        if may_drop && !self.has_room(packet.wire) {
            self.counters.dropped_packets += 1;
            return false;
        }
        if self.queue.is_empty()
            && let (Some(air), Way::Uplink) = (&self.air, self.way)
        {
            // While it has data the device reports its buffer along with it, and need not ask again.
            let idle = packet.at >= self.last_end;
            self.granted_at = air.uplink_start(packet.at, idle);
        }
        self.queued_bytes += u64::from(packet.wire);
        self.queue.push_back(packet);
        self.counters.most_queue_bytes = self.counters.most_queue_bytes.max(self.queued_bytes);
        true
    }

    /// When the first packet could start on a link that is free from `free_at` on.
    pub(super) fn earliest_start(&mut self, free_at: u64) -> Option<u64> {
        let head = self.queue.front()?;
        let start = free_at.max(head.at).max(self.granted_at);
        // Not asked about `until` itself: an outage is over when time has got there.
        Some(self.outages.silent_until(start).unwrap_or(start))
    }

    /// Sends the first packet at `start`, on a link that was free from `free_at` on; gives the airtime that
    /// it took. With a bucket that was full this lies before `start`: it was saved up.
    pub(super) fn transmit(&mut self, start: u64, free_at: u64) -> Range<u64> {
        let Some(packet) = self.queue.pop_front() else { return start..start };
        self.queued_bytes -= u64::from(packet.wire);
        let idle = start > self.last_end;
        let saved_ns = self.capacity.airtime(start, self.burst_bytes);
        let from = self.last_end.max(free_at).max(start.saturating_sub(saved_ns));
        let end = self.capacity.finish(from, packet.wire, idle);
        let (repair_ns, repair) = self.errors.delay(packet.wire, idle);
        let travel_ns = self.jitter.travel(self.delay.at(end)).saturating_add(repair_ns);
        let arrival = end.max(start).saturating_add(travel_ns).max(self.last_arrival);
        (self.last_end, self.last_arrival) = (end, arrival);
        self.flying.push_back((arrival, packet));

        let waited = start - packet.at.min(start);
        let counters = &mut self.counters;
        counters.packets += 1;
        counters.wire_bytes += u64::from(packet.wire);
        counters.harq_retransmissions += u64::from(repair.harq_rounds);
        counters.rlc_retransmissions += u64::from(repair.rlc);
        counters.queued_ns = counters.queued_ns.saturating_add(waited);
        counters.longest_queued_ns = counters.longest_queued_ns.max(waited);
        counters.last_queued_ns = waited;
        from..end
    }

    /// The instant of the first arrival, if no event is queued for it.
    pub(super) fn arm(&mut self) -> Option<u64> {
        let at = self.flying.front().map(|(at, _)| *at)?;
        (!std::mem::replace(&mut self.armed, true)).then_some(at)
    }

    /// The next packet that has arrived by `at`; none disarms.
    pub(super) fn land(&mut self, at: u64) -> Option<Packet> {
        if self.flying.front().is_some_and(|(arrival, _)| *arrival <= at) {
            return self.flying.pop_front().map(|(_, packet)| packet);
        }
        self.armed = false;
        None
    }

    /// The packet that is being sent when the profile changes is through no later than the new rate
    /// needs for it, so that a network that is stuck can be left. Gives the instants at which the link
    /// would have been free, and now is.
    pub(super) fn hurry(&mut self, now: u64) -> Option<(u64, u64)> {
        let old_end = self.last_end;
        let wire = self.flying.back().filter(|_| old_end > now)?.1.wire;
        let end = self.capacity.finish(now, wire, true).min(old_end);
        let before = self.flying.iter().rev().nth(1).map_or(0, |(arrival, _)| *arrival);
        let (arrival, _) = self.flying.back_mut()?;
        *arrival = (*arrival - (old_end - end)).max(before).max(end);
        (self.last_end, self.last_arrival) = (end, *arrival);
        if self.flying.len() == 1 {
            self.armed = false;
        }
        Some((old_end, end))
    }

    /// The rate at `t`, bit/s; none if it is not limited.
    pub(super) fn rate_bps(&self, t: u64) -> Option<u64> {
        self.capacity.span(t).map(|span| span.rate_bps)
    }

    pub(super) fn is_silent(&mut self, t: u64) -> bool {
        self.outages.silent_until(t).is_some()
    }

    pub(super) fn counters(&mut self, now: u64) -> LaneCounters {
        let outage_ns = self.outages.silence(now);
        LaneCounters { queue_bytes: self.queued_bytes, outage_ns, ..self.counters }
    }
}
