//! Airtime, windows, queues and time against arithmetic.

use super::*;

#[test]
fn bytes_take_their_airtime_and_the_delay() {
    let (mut lab, _, connection) = lab(&plain(8_000_000, 10.0), 1);
    assert_eq!(up(&mut lab, connection, 1_000), 11.0);
    assert_eq!(up(&mut lab, connection, 1_000_000), 1_010.0);
    // Rounding does not add up: 3 bit/ns and a bit.
    let (mut lab, _, connection) = self::lab(&plain(3_000_000_007, 0.0), 1);
    close(up(&mut lab, connection, 100_000_000), 800e6 / 3_000_000.007, 1e-7);
}

#[test]
fn a_handshake_and_slow_start_cost_round_trips() {
    let mut profile = tcp(plain(1_000_000_000, 50.0));
    profile.uplink.queue_bytes = 10_000_000;
    let (mut lab, _, connection) = lab(&profile, 1);
    assert!((lab.now().as_secs_f64() - 0.1).abs() < 1e-3, "SYN and its answer");
    // Ten segments at once; the next twenty when these are acknowledged.
    let segment = 1448;
    assert!(up(&mut lab, connection, 10 * segment) < 51.0);
    let mut fresh = self::lab(&profile, 1);
    let took = up(&mut fresh.0, fresh.2, 30 * segment);
    assert!((150.0..152.0).contains(&took), "{took} ms for 30 segments");
    // Once open the window stays open; after seconds of silence it is small again.
    up(&mut lab, connection, 1_000_000);
    lab.sleep(Duration::from_millis(200));
    let warm = up(&mut lab, connection, 200 * segment);
    assert!(warm < 53.0, "{warm} ms");
    lab.sleep(Duration::from_secs(10));
    let cold = up(&mut lab, connection, 200 * segment);
    assert!(cold > warm + 99.0, "warm {warm} ms, cold {cold} ms");
}

#[test]
fn a_full_queue_drops_and_nothing_is_lost() {
    let mut profile = tcp(plain(10_000_000, 20.0));
    profile.uplink.queue_bytes = 30_000;
    let (mut lab, device, connection) = lab(&profile, 1);
    let took = up(&mut lab, connection, 5_000_000);
    let uplink = lab.status(device).uplink;
    assert!(uplink.dropped_packets > 0, "{uplink:?}");
    assert_eq!(uplink.delivered_bytes, 5_000_000);
    assert!(uplink.most_queue_bytes <= 30_000);
    // 4000 ms of airtime; CUBIC keeps the link mostly busy.
    assert!((4_000.0..5_200.0).contains(&took), "{took} ms");
}

#[test]
fn a_deep_queue_bloats_the_round_trip() {
    let mut profile = tcp(plain(10_000_000, 10.0));
    let mut bloat = |queue_bytes| {
        profile.uplink.queue_bytes = queue_bytes;
        let (mut lab, device, connection) = lab(&profile, 1);
        up(&mut lab, connection, 8_000_000);
        let status = lab.status(device);
        (status.uplink.longest_queued_ns as f64 / 1e6, status.rtt_ns as f64 / 1e6)
    };
    let (shallow, deep) = (bloat(25_000), bloat(500_000));
    assert!((15.0..=20.0).contains(&shallow.0), "25 kB at 10 Mbit/s are 20 ms: {shallow:?}");
    assert!((200.0..=400.0).contains(&deep.0), "500 kB are 400 ms: {deep:?}");
    assert!(deep.1 > 4.0 * shallow.1, "{shallow:?} {deep:?}");
}

#[test]
fn equal_seeds_give_equal_schedules_and_an_hour_takes_seconds() {
    let mut profile = tcp(plain(20_000_000, 20.0));
    profile.uplink.jitter = Jitter::Normal { std_ms: 2.0 };
    profile.outage = Some(Outage { every_s: 60.0, duration_ms: 300.0, spread_ms: 200.0 });
    let hour = |seed| {
        let (mut lab, device, connection) = lab(&profile, seed);
        let mut trips = Vec::new();
        while lab.now() < Duration::from_secs(3600) {
            trips.push(lab.exchange(connection, 50_000, 100).expect("arrives"));
            lab.sleep(Duration::from_millis(900));
        }
        (trips, lab.status(device))
    };
    let first = hour(1);
    assert!(first.0.len() > 3_000);
    assert_eq!(first, hour(1));
    assert_ne!(first.0, hour(2).0);
}

#[test]
fn a_network_that_stopped_for_good_can_be_left() {
    let mut stopped = plain(1_000_000, 1.0);
    // One bit a second after the first one: as good as dead.
    let dead = "time_s,uplink_bps,downlink_bps,rtt_ms\n0,1000000,1000000,2\n1,1,1,2\n";
    let trace = Trace::parse_csv("dead", dead, AtEnd::Hold);
    stopped.trace = Some(std::sync::Arc::new(trace.expect("valid")));
    let mut lab = WhatIf::new(Scheduler::RoundRobin);
    let device = lab.join(&stopped, 1);
    let connection = lab.connect(device).expect("connects");
    let transfer = Transfer { connection, way: Way::Uplink, bytes: 1_000_000 };
    lab.run_until(&[transfer], Duration::from_secs(3_600));
    let stuck = lab.status(device).uplink;
    assert!(stuck.queue_bytes > 0 && stuck.delivered_bytes < 200_000, "{stuck:?}");
    lab.set_profile(device, &plain(80_000_000, 1.0));
    lab.run_until(&[], lab.now() + Duration::from_secs(1));
    let left = lab.status(device).uplink;
    assert_eq!((left.queue_bytes, left.delivered_bytes), (0, left.accepted_bytes));
}

#[test]
fn a_bucket_that_filled_in_silence_lets_a_burst_through() {
    let mut profile = plain(8_000_000, 10.0);
    profile.uplink.burst_bytes = 3_000;
    let (mut lab, _, connection) = lab(&profile, 1);
    for bytes in [3_000, 5_000] {
        lab.sleep(Duration::from_secs(1));
        let beyond_ms = (bytes - 3_000) as f64 / 1_000.0;
        assert_eq!(up(&mut lab, connection, bytes), 10.0 + beyond_ms);
    }
}
