//! What a transfer would take: the simulated network without sockets, in virtual time.
//!
//! For planners and tests: it runs as fast as the arithmetic allows, and equal calls give equal answers.

use std::time::Duration;

use bytes::Bytes;

use super::{
    nr::Way,
    profile::Profile,
    sim::{DeviceId, DeviceStatus, FlowId, Network, Scheduler, Taken},
};

/// Zeros to send; slices of it share the memory.
const BLOCK: usize = 64 << 10;

/// A cell in virtual time, its devices' transfers, and the instant that they have reached.
#[derive(Debug)]
pub struct WhatIf {
    network: Network,
    zeros: Bytes,
    now: u64,
}

/// An open connection of a [`WhatIf`].
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    uplink: FlowId,
}

impl Connection {
    fn flow(self, way: Way) -> FlowId {
        if way == Way::Uplink { self.uplink } else { self.uplink.reverse() }
    }
}

/// A transfer to run: so many bytes, in one direction of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub connection: Connection,
    pub way: Way,
    pub bytes: u64,
}

impl WhatIf {
    pub fn new(scheduler: Scheduler) -> Self {
        Self { network: Network::new(scheduler), zeros: Bytes::from(vec![0; BLOCK]), now: 0 }
    }

    pub fn join(&mut self, profile: &Profile, seed: u64) -> DeviceId {
        self.network.add_device(profile, seed)
    }

    /// Puts a device on another network.
    pub fn set_profile(&mut self, device: DeviceId, profile: &Profile) {
        self.network.set_profile(device, profile, self.now);
    }

    /// The virtual instant.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - self.now);
        self.network.advance(self.now);
    }

    pub fn status(&mut self, device: DeviceId) -> DeviceStatus {
        self.network.status(device, self.now)
    }

    /// Connects, and waits for the handshake. None if the link never lets it through.
    pub fn connect(&mut self, device: DeviceId) -> Option<Connection> {
        let uplink = self.network.connect(device, self.now);
        self.network.advance(self.now);
        while !self.network.is_established(uplink) {
            self.step()?;
        }
        Some(Connection { uplink })
    }

    /// Runs transfers that begin together, until the last byte of the last one has arrived; gives how
    /// long each took. None if the link never lets them through.
    pub fn transfer(&mut self, transfers: &[Transfer]) -> Option<Vec<Duration>> {
        let begin = self.now;
        let mut runs: Vec<Run> = transfers.iter().map(|t| Run::new(*t)).collect();
        loop {
            let mut done = true;
            for run in &mut runs {
                run.write(&mut self.network, &self.zeros, self.now);
                done &= run.read(&mut self.network, self.now);
            }
            self.network.advance(self.now);
            if done {
                let took = |run: Run| Duration::from_nanos(run.ended.unwrap_or(begin) - begin);
                return Some(runs.into_iter().map(took).collect());
            }
            // What was written may have been due at once.
            if !runs.iter().any(|run| run.is_readable(&self.network)) {
                self.step()?;
            }
        }
    }

    /// Writes `head` bytes and at once `body` more, as HTTP/2 writes a frame of headers before one of data:
    /// the first are a packet of their own. Gives when the last byte has arrived.
    pub fn message(&mut self, transfer: Transfer, head: u64) -> Option<Duration> {
        let flow = transfer.connection.flow(transfer.way);
        let head = head.min(self.zeros.len() as u64);
        let begin = self.now;
        self.network.write(flow, self.zeros.slice(..head as usize), self.now);
        self.network.advance(self.now);
        let mut run = Run::new(transfer);
        run.to_read += head;
        loop {
            run.write(&mut self.network, &self.zeros, self.now);
            let done = run.read(&mut self.network, self.now);
            self.network.advance(self.now);
            if done {
                return Some(Duration::from_nanos(self.now - begin));
            }
            if !run.is_readable(&self.network) {
                self.step()?;
            }
        }
    }

    /// Lets transfers run that may never end, until `end`.
    pub fn run_until(&mut self, transfers: &[Transfer], end: Duration) {
        let end = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX);
        let mut runs: Vec<Run> = transfers.iter().map(|t| Run::new(*t)).collect();
        loop {
            for run in &mut runs {
                run.write(&mut self.network, &self.zeros, self.now);
                run.read(&mut self.network, self.now);
            }
            self.network.advance(self.now);
            if self.network.next_event().is_none_or(|next| next > end) {
                self.now = end;
                return;
            }
            self.step();
        }
    }

    /// Events that will happen if nothing more is sent.
    pub fn pending_events(&self) -> usize {
        self.network.pending_events()
    }

    /// Sends `up` bytes, and when they are there `down` bytes back, as a request and its answer.
    pub fn exchange(&mut self, connection: Connection, up: u64, down: u64) -> Option<Duration> {
        self.exchanges(&[connection], up, down)
    }

    /// The same on many connections at once; gives when the last answer was there.
    pub fn exchanges(
        &mut self,
        connections: &[Connection],
        up: u64,
        down: u64,
    ) -> Option<Duration> {
        let begin = self.now;
        let run = |connection: &Connection, way, bytes| {
            Run::new(Transfer { connection: *connection, way, bytes })
        };
        let mut asking: Vec<(Connection, Run)> =
            connections.iter().map(|c| (*c, run(c, Way::Uplink, up))).collect();
        let mut answering: Vec<Run> = Vec::new();
        loop {
            asking.retain_mut(|(connection, request)| {
                request.write(&mut self.network, &self.zeros, self.now);
                let asked = request.read(&mut self.network, self.now);
                if asked {
                    answering.push(run(connection, Way::Downlink, down));
                }
                !asked
            });
            answering.retain_mut(|answer| {
                answer.write(&mut self.network, &self.zeros, self.now);
                !answer.read(&mut self.network, self.now)
            });
            if asking.is_empty() && answering.is_empty() {
                return Some(Duration::from_nanos(self.now - begin));
            }
            self.network.advance(self.now);
            let mut open = asking.iter().map(|(_, run)| run).chain(&answering);
            if !open.any(|run| run.is_readable(&self.network)) {
                self.step()?;
            }
        }
    }

    /// Ends a connection, whatever is under way on it.
    pub fn disconnect(&mut self, connection: Connection) {
        for way in [Way::Uplink, Way::Downlink] {
            self.network.remove(connection.flow(way));
        }
    }

    /// To the next event.
    fn step(&mut self) -> Option<()> {
        self.now = self.now.max(self.network.next_event()?);
        self.network.advance(self.now);
        Some(())
    }
}

/// Round trips of a mean, and the silence between them: a number of µs that no slot divides, so that
/// they meet every phase of the slots.
const TRIPS: u32 = 500;
const SILENCE: Duration = Duration::from_micros(23_017);

/// What a byte takes there and back on an idle link, on average: slots, grants and repairs included.
/// None if the link does not let it through.
pub fn mean_round_trip(profile: &Profile) -> Option<Duration> {
    let mut lab = WhatIf::new(Scheduler::default());
    let device = lab.join(profile, 1);
    let connection = lab.connect(device)?;
    let mut sum = Duration::ZERO;
    for _ in 0..TRIPS {
        lab.sleep(SILENCE);
        sum += lab.exchange(connection, 1, 1)?;
    }
    Some(sum / TRIPS)
}

/// A transfer under way.
struct Run {
    flow: FlowId,
    to_write: u64,
    to_read: u64,
    ended: Option<u64>,
}

impl Run {
    fn new(Transfer { connection, way, bytes }: Transfer) -> Self {
        Self { flow: connection.flow(way), to_write: bytes, to_read: bytes, ended: None }
    }

    fn write(&mut self, network: &mut Network, zeros: &Bytes, now: u64) {
        while self.to_write > 0 {
            let room = network.room(self.flow).unwrap_or(0) as u64;
            let count = room.min(self.to_write).min(zeros.len() as u64) as usize;
            if count == 0 {
                return;
            }
            network.write(self.flow, zeros.slice(..count), now);
            self.to_write -= count as u64;
        }
    }

    fn is_readable(&self, network: &Network) -> bool {
        self.to_read > 0 && network.is_readable(self.flow)
    }

    /// Whether everything has arrived.
    fn read(&mut self, network: &mut Network, now: u64) -> bool {
        while self.to_read > 0 {
            let Taken::Bytes(bytes) = network.take(self.flow, usize::MAX, now) else {
                return false;
            };
            self.to_read -= bytes.len() as u64;
        }
        self.ended.get_or_insert(now);
        true
    }
}
