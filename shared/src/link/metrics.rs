//! The link's state as metrics, in Prometheus' naming.

use metrics::{counter, gauge};

use super::{
    cell::Link,
    sim::{DeviceStatus, LaneCounters},
};

/// Sets the metrics of one link, labelled with the name of its edge; to be called before each scrape.
pub fn publish(link: &Link, edge: &str) {
    let edge = edge.to_owned();
    let counted = link.counters();
    let status = link.status();
    counter!("cleave_link_connections_total", "edge" => edge.clone()).absolute(counted.connections);
    gauge!("cleave_link_rtt_seconds", "edge" => edge.clone()).set(status.rtt_ns as f64 / 1e9);
    let DeviceStatus { uplink_bps, downlink_bps, .. } = status;
    direction(&counted.uplink, uplink_bps, "uplink", &edge);
    direction(&counted.downlink, downlink_bps, "downlink", &edge);
}

fn direction(lane: &LaneCounters, bps: Option<u64>, direction: &'static str, edge: &str) {
    let count = |name: &'static str, value: u64| {
        counter!(name, "direction" => direction, "edge" => edge.to_owned()).absolute(value);
    };
    let set = |name: &'static str, value: f64| {
        gauge!(name, "direction" => direction, "edge" => edge.to_owned()).set(value);
    };
    count("cleave_link_accepted_bytes_total", lane.accepted_bytes);
    count("cleave_link_delivered_bytes_total", lane.delivered_bytes);
    count("cleave_link_wire_bytes_total", lane.wire_bytes);
    count("cleave_link_packets_total", lane.packets);
    count("cleave_link_dropped_packets_total", lane.dropped_packets);
    count("cleave_link_harq_retransmissions_total", lane.harq_retransmissions);
    count("cleave_link_rlc_retransmissions_total", lane.rlc_retransmissions);
    count("cleave_link_queueing_microseconds_total", lane.queued_ns / 1_000);
    count("cleave_link_outage_microseconds_total", lane.outage_ns / 1_000);
    set("cleave_link_queue_bytes", lane.queue_bytes as f64);
    set("cleave_link_queue_bytes_max", lane.most_queue_bytes as f64);
    set("cleave_link_queueing_seconds_last", lane.last_queued_ns as f64 / 1e9);
    set("cleave_link_queueing_seconds_max", lane.longest_queued_ns as f64 / 1e9);
    // Not limited: infinite, as Prometheus can say.
    set("cleave_link_rate_bits_per_second", bps.map_or(f64::INFINITY, |bps| bps as f64));
}
