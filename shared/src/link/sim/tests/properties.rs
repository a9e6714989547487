//! Whatever callers do.

use proptest::prelude::*;

use super::*;

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
    lossy.uplink.burst_bytes = 3_000;
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
