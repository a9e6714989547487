//! What a network is like: plain data, from a file.
//!
//! A profile is a TOML file in `config/links`; `docs/link.md` explains each key. The ones that come with
//! Cleave are compiled in as well, so that a binary alone knows them.

mod check;
mod file;
mod tables;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    nr::{Air, Way},
    trace::Trace,
};

/// The network between an edge and its cloud. See `docs/link.md` for where each figure acts.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The file's name without `.toml`.
    pub name: String,
    pub description: String,
    /// Where the figures come from.
    pub sources: Vec<String>,
    /// From the edge to the cloud.
    pub uplink: Direction,
    pub downlink: Direction,
    pub packet: Packet,
    pub transport: Transport,
    /// 5G slots and grants; none: a link that is always open.
    pub air: Option<Air>,
    pub outage: Option<Outage>,
    /// Replaces the rates, and the delays where it has round trips.
    pub trace: Option<Arc<Trace>>,
}

/// One direction of a profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Long-run average that a lone device can get, headers included, bit/s; 0: not limited.
    pub rate_bps: u64,
    /// Propagation and core network, one way, ms.
    pub delay_ms: f64,
    pub jitter: Jitter,
    /// What the queue holds beside the packet under way, bytes; more is dropped (or, with an open
    /// window, waits at the sender).
    pub queue_bytes: u64,
    /// What may go at once after a silence, bytes: a token bucket's depth. Radios have none.
    pub burst_bytes: u64,
    pub harq: Option<Harq>,
}

/// Variation of the delay, drawn for each packet; order is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Jitter {
    None,
    /// Around the delay, cut off at three deviations and at zero.
    Normal {
        std_ms: f64,
    },
    /// Added to the delay; a long tail (Lomax, shape above 1).
    Pareto {
        mean_ms: f64,
        shape: f64,
    },
    /// Added to the delay, in this order, from the start again at the end, ms.
    Samples(Arc<[f64]>),
}

/// Block errors and their repair (TS 38.321 clause 5.3.2 and 5.4.2, TS 38.322 clause 5.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Harq {
    /// Probability that a transport block's first transmission fails.
    pub bler: f64,
    /// From a failed transmission to its repetition, ms.
    pub round_ms: f64,
    /// Repetitions before HARQ gives up.
    pub max_rounds: u32,
    /// Factor on the error probability with each repetition: soft combining helps.
    pub combining_gain: f64,
    /// Added when HARQ gave up: status report and retransmission of RLC's acknowledged mode, ms.
    pub rlc_ms: f64,
    /// Bytes that fail together.
    pub block_bytes: u32,
}

/// How a stream is cut into packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Packet {
    /// Largest IP packet, bytes; 52 of them are IP and TCP headers.
    pub mtu_bytes: u32,
    /// Bytes that each packet takes on the link beside its payload.
    pub overhead_bytes: u32,
}

/// How connections behave on the link.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// As Linux' TCP with CUBIC.
    Tcp {
        /// Segments before the first acknowledgement (RFC 6928).
        initial_window: u32,
        /// Opening a connection takes a round trip.
        handshake: bool,
        /// An idle connection begins anew (RFC 5681 section 4.1).
        slow_start_after_idle: bool,
    },
    /// The window is always open: the link alone decides, and pushes back when it is full.
    Open,
}

/// Handovers or blockages: both directions are silent for a time, and then drain.
#[derive(Clone, Debug, PartialEq)]
pub struct Outage {
    /// Mean time between two, exponential, s.
    pub every_s: f64,
    /// Length, ms, uniform within ± `spread_ms`.
    pub duration_ms: f64,
    pub spread_ms: f64,
}

/// Why a profile was refused: one line with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ProfileError {
    /// `FILE:LINE`, or the file or name.
    pub place: String,
    pub problem: String,
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        /// The profiles that come with Cleave.
        pub const NAMES: &'static [&'static str] = &[$($name),*];

        fn builtin_text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../../../../config/links/", $name, ".toml"))),)*
                _ => None,
            }
        }
    };
}

impl Profile {
    builtin!(
        "5g-midband",
        "5g-mmwave",
        "5g-lowband",
        "5g-sa-configured-grant",
        "lte",
        "wifi",
        "none",
    );

    /// One of [`Profile::NAMES`].
    pub fn builtin(name: &str) -> Option<Profile> {
        let text = Self::builtin_text(name)?;
        // A test reads them all.
        file::parse(&format!("config/links/{name}.toml"), name, text, Path::new("")).ok()
    }

    /// Reads a profile's file.
    pub fn load(path: &Path) -> Result<Profile, ProfileError> {
        let place = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|e| ProfileError {
            place: place.clone(),
            problem: format!("cannot be read: {e}"),
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        file::parse(&place, &name, &text, path.parent().unwrap_or(Path::new("")))
    }

    /// A profile by name, from `folder` if it is there and from the binary otherwise; or by path, if
    /// it has a slash or ends in `.toml`.
    pub fn find(name: &str, folder: Option<&Path>) -> Result<Profile, ProfileError> {
        if name.contains('/') || name.ends_with(".toml") {
            return Self::load(Path::new(name));
        }
        let file = folder.map(|folder| folder.join(format!("{name}.toml")));
        if let Some(file) = file.filter(|file| file.is_file()) {
            return Self::load(&file);
        }
        Self::builtin(name).ok_or_else(|| ProfileError {
            place: format!("{name:?}"),
            problem: format!(
                "unknown profile; known: {}; or a path to a .toml file",
                Self::known(folder).join(", ")
            ),
        })
    }

    /// The names that [`Profile::find`] knows.
    pub fn known(folder: Option<&Path>) -> Vec<String> {
        let mut names: BTreeSet<String> = Self::NAMES.iter().map(|n| (*n).to_owned()).collect();
        let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let toml = files.filter(|path: &PathBuf| path.extension().is_some_and(|e| e == "toml"));
        names
            .extend(toml.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())));
        names.into_iter().collect()
    }

    pub fn direction(&self, way: Way) -> &Direction {
        match way {
            Way::Uplink => &self.uplink,
            Way::Downlink => &self.downlink,
        }
    }

    /// Mean propagation both ways, ms: a byte's round trip without serialisation, slots, grants and
    /// repairs. `WhatIf::mean_rtt` has those.
    pub fn delay_ms(&self) -> f64 {
        match self.trace.as_ref().and_then(|trace| trace.rtt.as_ref()) {
            Some(rtt) => rtt.at(0),
            None => self.uplink.delay_ms + self.downlink.delay_ms,
        }
    }

    /// Whether the link would do nothing at all, so that it can be left out.
    pub fn is_ideal(&self) -> bool {
        let ideal = |d: &Direction| {
            d.rate_bps == 0 && d.delay_ms == 0.0 && d.jitter == Jitter::None && d.harq.is_none()
        };
        ideal(&self.uplink)
            && ideal(&self.downlink)
            && self.air.is_none()
            && self.outage.is_none()
            && self.trace.is_none()
    }

    /// Bytes that fill the delay and the queue of the larger direction.
    pub fn pipe_bytes(&self) -> u64 {
        let fill = |way: Way| {
            let direction = self.direction(way);
            let rate = match (&self.trace, way) {
                (Some(trace), Way::Uplink) => trace.uplink.mean_bps(),
                (Some(trace), Way::Downlink) => trace.downlink.mean_bps(),
                (None, _) => direction.rate_bps as f64,
            };
            (rate / 8e3 * self.delay_ms()) as u64 + direction.queue_bytes
        };
        fill(Way::Uplink).max(fill(Way::Downlink))
    }
}

#[cfg(test)]
mod tests;
