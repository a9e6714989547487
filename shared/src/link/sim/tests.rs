//! The simulated network against arithmetic, and against chance.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::link::{
    profile::{Direction, Harq, Jitter, Outage},
    trace::{AtEnd, Trace},
    whatif::{Connection, Transfer, WhatIf},
};

/// `rate_bps` and `delay_ms` both ways, nothing else: no headers, no TCP.
fn plain(rate_bps: u64, delay_ms: f64) -> Profile {
    let mut profile = Profile::builtin("none").expect("built in");
    let queue_bytes = 200_000;
    let direction = Direction {
        rate_bps,
        delay_ms,
        jitter: Jitter::None,
        queue_bytes,
        burst_bytes: 0,
        harq: None,
    };
    (profile.uplink, profile.downlink) = (direction.clone(), direction);
    profile.packet.overhead_bytes = 0;
    profile.transport = Transport::Open;
    profile
}

fn tcp(profile: Profile) -> Profile {
    let transport =
        Transport::Tcp { initial_window: 10, handshake: true, slow_start_after_idle: true };
    Profile { transport, ..profile }
}

fn lab(profile: &Profile, seed: u64) -> (WhatIf, DeviceId, Connection) {
    let mut lab = WhatIf::new(Scheduler::RoundRobin);
    let device = lab.join(profile, seed);
    let connection = lab.connect(device).expect("connects");
    (lab, device, connection)
}

fn up(lab: &mut WhatIf, connection: Connection, bytes: u64) -> f64 {
    let transfer = Transfer { connection, way: Way::Uplink, bytes };
    lab.transfer(&[transfer]).expect("arrives")[0].as_secs_f64() * 1e3
}

#[track_caller]
fn close(measured: f64, expected: f64, tolerance: f64) {
    assert!(
        (measured / expected - 1.0).abs() <= tolerance,
        "measured {measured}, expected {expected} within {tolerance}"
    );
}

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
fn jitter_has_its_mean_and_deviation_and_keeps_order() {
    let mut profile = plain(0, 25.0);
    let mut delays = |jitter: Jitter, seed| -> Vec<f64> {
        profile.uplink.jitter = jitter;
        let (mut lab, _, connection) = lab(&profile, seed);
        (0..20_000).map(|_| up(&mut lab, connection, 1)).collect()
    };
    let stats = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        (mean, variance.sqrt())
    };
    let normal = delays(Jitter::Normal { std_ms: 4.0 }, 7);
    let (mean, std) = stats(&normal);
    assert!((mean - 25.0).abs() < 0.15 && (std - 4.0).abs() < 0.15, "{mean} {std}");
    assert!(normal.iter().all(|d| (13.0..=37.0).contains(d)));
    assert_eq!(normal, delays(Jitter::Normal { std_ms: 4.0 }, 7));
    assert_ne!(normal, delays(Jitter::Normal { std_ms: 4.0 }, 8));

    let pareto = delays(Jitter::Pareto { mean_ms: 3.0, shape: 3.0 }, 7);
    let (mean, _) = stats(&pareto);
    assert!((mean - 28.0).abs() < 0.3, "{mean}");
    let far = pareto.iter().filter(|d| **d > 25.0 + 20.0).count() as f64 / 20_000.0;
    // Survival function (1 + x / scale)^-shape with scale = mean (shape - 1) = 6.
    close(far, (1.0f64 + 20.0 / 6.0).powi(-3), 0.25);

    let samples = delays(Jitter::Samples([1.0, 2.5].into()), 7);
    assert_eq!(&samples[..4], [26.0, 27.5, 26.0, 27.5]);
}

#[test]
fn block_errors_are_delays() {
    let mut profile = plain(0, 10.0);
    let harq = |bler| Harq {
        bler,
        round_ms: 8.0,
        max_rounds: 2,
        combining_gain: 0.5,
        rlc_ms: 40.0,
        block_bytes: 1_000,
    };
    profile.uplink.harq = Some(harq(0.2));
    let (mut lab, device, connection) = lab(&profile, 3);
    let delays: Vec<f64> = (0..50_000).map(|_| up(&mut lab, connection, 1)).collect();
    let share = |ms: f64| delays.iter().filter(|d| **d == ms).count() as f64 / 50_000.0;
    // First round fails with 0.2, the second with 0.1, the third with 0.05.
    close(share(10.0), 0.8, 0.02);
    close(share(18.0), 0.2 * 0.9, 0.05);
    close(share(26.0), 0.2 * 0.1 * 0.95, 0.15);
    close(share(66.0), 0.2 * 0.1 * 0.05, 0.6);
    let uplink = lab.status(device).uplink;
    close(uplink.harq_retransmissions as f64, 50_000.0 * (0.2 + 0.02), 0.05);
    assert!(uplink.rlc_retransmissions > 10);
    assert_eq!(lab.status(device).downlink.harq_retransmissions, 0);
}

#[test]
fn an_outage_silences_both_ways_and_then_drains() {
    let mut profile = plain(80_000_000, 5.0);
    profile.outage = Some(Outage { every_s: 1.0, duration_ms: 100.0, spread_ms: 0.0 });
    let (mut lab, device, connection) = lab(&profile, 5);
    let ways = [Way::Uplink, Way::Downlink];
    let transfers = ways.map(|way| Transfer { connection, way, bytes: 100_000_000 });
    let took = lab.transfer(&transfers).expect("arrives");
    assert_eq!(took[0], took[1], "both directions lose the same time");
    let status = lab.status(device);
    let outage_s = status.uplink.outage_ns as f64 / 1e9;
    close(took[0].as_secs_f64(), 10.0 + outage_s + 0.005, 1e-3);
    assert!((0.3..3.0).contains(&outage_s), "{outage_s} s of about 1");
    assert_eq!(status.uplink.outage_ns, status.downlink.outage_ns);
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

/// Rates (bytes) that `edges` saturating devices got of a cell in five seconds.
fn shares(scheduler: Scheduler, profiles: &[Profile], way: Way) -> Vec<f64> {
    let mut lab = WhatIf::new(scheduler);
    let transfers: Vec<(DeviceId, Transfer)> = profiles
        .iter()
        .enumerate()
        .map(|(seed, profile)| {
            let device = lab.join(profile, seed as u64);
            let connection = lab.connect(device).expect("connects");
            (device, Transfer { connection, way, bytes: u64::MAX })
        })
        .collect();
    let flows: Vec<Transfer> = transfers.iter().map(|(_, transfer)| *transfer).collect();
    lab.run_until(&flows, lab.now() + Duration::from_secs(5));
    let lane = |status: DeviceStatus| match way {
        Way::Uplink => status.uplink,
        Way::Downlink => status.downlink,
    };
    transfers.iter().map(|(d, _)| lane(lab.status(*d)).wire_bytes as f64).collect()
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|x| x * x).sum::<f64>())
}

#[test]
fn a_cell_is_shared_fairly_and_entirely() {
    for transport in [plain as fn(u64, f64) -> Profile, |rate, delay| tcp(plain(rate, delay))] {
        for count in [1, 2, 8, 64] {
            for way in [Way::Uplink, Way::Downlink] {
                let profiles = vec![transport(100_000_000, 5.0); count];
                for scheduler in [Scheduler::RoundRobin, Scheduler::ProportionalFair] {
                    let got = shares(scheduler, &profiles, way);
                    let capacity = 100e6 / 8.0 * 5.0;
                    close(got.iter().sum(), capacity, 0.02);
                    assert!(jain(&got) >= 0.99, "{count} edges, {scheduler:?}: {got:?}");
                }
            }
        }
    }
}

#[test]
fn round_robin_shares_airtime_and_not_bytes() {
    let got = shares(
        Scheduler::RoundRobin,
        &[plain(100_000_000, 5.0), plain(10_000_000, 5.0)],
        Way::Uplink,
    );
    close(got[0] / got[1], 10.0, 0.02);
    close(got[0], 100e6 / 8.0 * 2.5, 0.02);
}

#[test]
fn a_thousand_idle_devices_cost_little() {
    let mut lab = WhatIf::new(Scheduler::RoundRobin);
    let profile = tcp(plain(100_000_000, 5.0));
    let connections: Vec<Connection> = (0..1_000)
        .map(|seed| {
            let device = lab.join(&profile, seed);
            lab.connect(device).expect("connects")
        })
        .collect();
    lab.sleep(Duration::from_secs(1));
    assert_eq!(lab.pending_events(), 0, "idle devices keep nothing going");
    assert!(up(&mut lab, connections[500], 1_000_000) < 400.0);
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

/// A saturated link delivers what the trace has, in each 100 ms.
#[test]
fn a_trace_is_reproduced() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/traces/");
    let path = |name: &str| std::path::PathBuf::from(format!("{folder}{name}"));
    let csv = |name: &str| Trace::read_csv(&path(name), AtEnd::Loop).expect("committed");
    let pair =
        Trace::read_mahimahi(&path("lowband-drive.up"), &path("lowband-drive.down"), AtEnd::Loop);
    for trace in [csv("midband-walk.csv"), csv("mmwave-walk.csv"), pair.expect("committed")] {
        let mut profile = plain(0, 0.0);
        profile.trace = Some(std::sync::Arc::new(Trace { rtt: None, ..trace.clone() }));
        let (mut lab, device, connection) = lab(&profile, 1);
        let ways = [Way::Uplink, Way::Downlink];
        let bulk = ways.map(|way| Transfer { connection, way, bytes: u64::MAX });
        let mut before = [0, 0];
        for window in 1..=700u64 {
            lab.run_until(&bulk, Duration::from_millis(100 * window));
            let status = lab.status(device);
            let now = [status.uplink.delivered_bytes, status.downlink.delivered_bytes];
            let (from, to) = (100_000_000 * (window - 1), 100_000_000 * window);
            for (way, curve) in [(0, &trace.uplink), (1, &trace.downlink)] {
                let expected = curve.bytes(from, to) as f64;
                let got = (now[way] - before[way]) as f64;
                // A packet may be under way at either end of the window.
                assert!(
                    (got - expected).abs() <= 0.02 * expected + 1_500.0,
                    "{} way {way} window {window}: {got} of {expected}",
                    trace.name
                );
            }
            before = now;
        }
    }
}

#[test]
fn slots_and_grants_shape_the_time_of_a_byte() {
    let midband = Profile::builtin("5g-midband").expect("built in");
    let trips = |mut profile: Profile| {
        profile.uplink.harq = None;
        profile.downlink.harq = None;
        let (mut lab, _, connection) = lab(&profile, 1);
        let mut trips: Vec<f64> = (0..500)
            .map(|_| {
                lab.sleep(Duration::from_micros(61_003));
                lab.exchange(connection, 1, 1).expect("arrives").as_secs_f64() * 1e3
            })
            .collect();
        trips.sort_by(f64::total_cmp);
        trips
    };
    let granted = trips(Profile::builtin("5g-sa-configured-grant").expect("built in"));
    let asked = trips(midband.clone());
    let delay = midband.delay_ms();
    // Configured: the next own slot, at most one pattern of 2.5 ms, and its symbols.
    assert!(granted[0] >= delay && granted[499] <= delay + 2.5 + 1.5, "{granted:?}");
    // Requests: an occasion within 2.5 ms (and a slot for it), 2 ms of grant, the next uplink slot.
    assert!(asked[0] >= delay + 2.0 && asked[499] <= delay + 2.0 + 3.0 * 2.5, "{asked:?}");
    assert!(asked[250] > granted[250] + 1.5, "{} {}", asked[250], granted[250]);
    // Saturated, the uplink gets its rate within the slots that it has.
    let mut bulk = midband;
    bulk.uplink.harq = None;
    bulk.transport = Transport::Open;
    bulk.packet.overhead_bytes = 0;
    let (mut lab, _, connection) = lab(&bulk, 1);
    let took = up(&mut lab, connection, 60_000_000);
    close(took, 8_000.0, 0.005);
}

#[derive(Clone, Debug)]
enum Op {
    Connect,
    Write(usize, Way, usize),
    Take(usize, Way, usize),
    Switch(usize),
    Cancel(usize),
    Finish(usize, Way),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let way = || prop_oneof![Just(Way::Uplink), Just(Way::Downlink)];
    let op = prop_oneof![
        1 => Just(Op::Connect),
        8 => (0..4usize, way(), 1..60_000usize).prop_map(|(c, w, n)| Op::Write(c, w, n)),
        4 => (0..4usize, way(), 1..100_000usize).prop_map(|(c, w, n)| Op::Take(c, w, n)),
        1 => (0..4usize).prop_map(Op::Switch),
        1 => (0..4usize).prop_map(Op::Cancel),
        1 => (0..4usize, way()).prop_map(|(c, w)| Op::Finish(c, w)),
        6 => (0..60_000_000u64).prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 1..80)
}

fn networks() -> Vec<Profile> {
    let mut lossy = tcp(plain(5_000_000, 20.0));
    lossy.uplink.queue_bytes = 8_000;
    lossy.downlink.queue_bytes = 8_000;
    let mut rough = tcp(plain(40_000_000, 5.0));
    rough.uplink.jitter = Jitter::Pareto { mean_ms: 2.0, shape: 1.5 };
    rough.outage = Some(Outage { every_s: 0.2, duration_ms: 30.0, spread_ms: 20.0 });
    rough.downlink.harq = Some(Harq {
        bler: 0.3,
        round_ms: 8.0,
        max_rounds: 1,
        combining_gain: 0.5,
        rlc_ms: 30.0,
        block_bytes: 2_000,
    });
    vec![plain(20_000_000, 10.0), lossy, rough, tcp(plain(0, 0.0))]
}

/// One direction of a connection as its users see it.
#[derive(Default)]
struct Stream {
    written: u64,
    read: u64,
    finished: bool,
    ended: bool,
}

/// The byte at an offset of a stream.
fn byte(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 16)) as u8
}

struct Trial {
    network: Network,
    device: DeviceId,
    now: u64,
    open: Vec<(FlowId, [Stream; 2])>,
}

impl Trial {
    fn apply(&mut self, op: Op, networks: &[Profile]) {
        match op {
            Op::Connect if self.open.len() < 4 => {
                let id = self.network.connect(self.device, self.now);
                self.open.push((id, Default::default()));
            }
            Op::Write(c, way, n) => self.write(c, way, n),
            Op::Take(c, way, n) => self.take(c, way, n),
            Op::Switch(n) => self.network.set_profile(self.device, &networks[n], self.now),
            Op::Cancel(c) if c < self.open.len() => {
                let (id, _) = self.open.remove(c);
                self.network.remove(id);
                self.network.remove(id.reverse());
            }
            Op::Finish(c, way) if c < self.open.len() => {
                let (id, streams) = &mut self.open[c];
                streams[way as usize].finished = true;
                self.network.finish(flow(*id, way), Ok(()), self.now);
            }
            Op::Wait(ns) => {
                self.now += ns;
                self.network.advance(self.now);
            }
            _ => {}
        }
        self.network.advance(self.now);
    }

    fn write(&mut self, c: usize, way: Way, n: usize) {
        let Some((id, streams)) = self.open.get_mut(c) else { return };
        let stream = &mut streams[way as usize];
        let room = self.network.room(flow(*id, way)).unwrap_or(0);
        assert!(!stream.finished || room == 0, "written after the end");
        let bytes: Bytes = (stream.written..).map(byte).take(n.min(room)).collect();
        if !bytes.is_empty() {
            stream.written += bytes.len() as u64;
            self.network.write(flow(*id, way), bytes, self.now);
        }
    }

    fn take(&mut self, c: usize, way: Way, limit: usize) {
        let Some((id, streams)) = self.open.get_mut(c) else { return };
        let stream = &mut streams[way as usize];
        match self.network.take(flow(*id, way), limit, self.now) {
            Taken::Bytes(bytes) => {
                assert!(bytes.len() <= limit && !stream.ended);
                for got in bytes {
                    assert_eq!(got, byte(stream.read), "at {}", stream.read);
                    stream.read += 1;
                }
                assert!(stream.read <= stream.written, "bytes from nowhere");
            }
            Taken::End => {
                assert!(stream.finished && stream.read == stream.written, "an early end");
                stream.ended = true;
            }
            Taken::Failed(failure) => panic!("{failure:?}"),
            Taken::Nothing => {}
        }
    }
}

fn flow(uplink: FlowId, way: Way) -> FlowId {
    if way == Way::Uplink { uplink } else { uplink.reverse() }
}

proptest! {
    /// Whatever is written, taken, cancelled and switched: bytes come in order, none is lost or made
    /// up, and an end comes after the last byte.
    #[test]
    fn every_byte_once_and_in_order(ops in ops(), seed: u64) {
        let networks = networks();
        let mut network = Network::new(Scheduler::RoundRobin);
        let device = network.add_device(&networks[0], seed);
        let mut trial = Trial { network, device, now: 0, open: Vec::new() };
        for op in ops {
            trial.apply(op, &networks);
        }
        // On a network that works, everything is through within seconds.
        trial.network.set_profile(trial.device, &networks[0], trial.now);
        for _ in 0..400 {
            trial.apply(Op::Wait(100_000_000), &networks);
            for c in 0..trial.open.len() {
                for way in [Way::Uplink, Way::Downlink] {
                    trial.take(c, way, usize::MAX);
                    trial.take(c, way, usize::MAX);
                }
            }
        }
        for c in 0..trial.open.len() {
            for way in [Way::Uplink, Way::Downlink] {
                while trial.network.is_readable(flow(trial.open[c].0, way))
                    && !trial.open[c].1[way as usize].ended
                {
                    trial.take(c, way, usize::MAX);
                }
                let stream = &trial.open[c].1[way as usize];
                prop_assert_eq!(stream.read, stream.written);
                prop_assert_eq!(stream.ended, stream.finished);
            }
        }
    }

    /// Never faster than the fastest rate in force, over any window: beyond rate x time there can only
    /// be what had queued up, or was in the air and came together.
    #[test]
    fn never_exceeds_rate_and_queue(
        ops in ops(),
        rates in prop::collection::vec(1_000_000..200_000_000u64, 4),
        delays in prop::collection::vec(0.0..30.0f64, 4),
        with_tcp: bool,
        seed: u64,
    ) {
        let networks: Vec<Profile> = rates.iter().zip(&delays).map(|(rate, delay)| {
            let mut profile = plain(*rate, *delay);
            profile.uplink.jitter = Jitter::Normal { std_ms: delay / 4.0 };
            if with_tcp { tcp(profile) } else { profile }
        }).collect();
        let most = *rates.iter().max().expect("four") as f64 / 8e9;
        let spread_ns = 1.75e6 * delays.iter().fold(0.0f64, |a, b| a.max(*b));
        let mut network = Network::new(Scheduler::RoundRobin);
        let device = network.add_device(&networks[0], seed);
        let mut trial = Trial { network, device, now: 0, open: Vec::new() };
        let mut arrived = vec![(0u64, 0u64)];
        for op in ops {
            let op = match op {
                // Looked at after each event, so that a burst cannot hide in a wait.
                Op::Wait(ns) => {
                    let end = trial.now + ns;
                    while let Some(next) = trial.network.next_event().filter(|next| *next < end) {
                        trial.now = trial.now.max(next);
                        trial.network.advance(trial.now);
                        let up = trial.network.status(device, trial.now).uplink;
                        arrived.push((trial.now, up.delivered_bytes));
                    }
                    Op::Wait(end.saturating_sub(trial.now))
                }
                other => other,
            };
            trial.apply(op, &networks);
            let up = trial.network.status(device, trial.now).uplink;
            arrived.push((trial.now, up.delivered_bytes));
        }
        arrived.dedup();
        for (i, (from, before)) in arrived.iter().enumerate() {
            for (to, after) in &arrived[i..] {
                let time_ns = (to - from) as f64;
                let bound = most * (time_ns + spread_ns) + 200_000.0 + 1_500.0;
                prop_assert!((after - before) as f64 <= bound);
            }
        }
        for (to, after) in &arrived {
            prop_assert!(*after as f64 <= most * *to as f64 + 1.0, "from the start no burst at all");
        }
    }
}
