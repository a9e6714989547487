//! When each part of a step ran: the spans of head, link and tail, and how much of them overlapped.
//!
//! The trainer adds a [`Span`] whenever a part of a micro-batch is over, and ends the step;
//! [`overlap`] then says how much of the work was hidden behind other work. The last steps are kept
//! in memory. `timeline.jsonl` in the run's folder has a line a step; when it has grown to its
//! largest, every second step is dropped, and from then on only every second one is written. So the
//! file stays small, and what is in it is spread over the whole run.

use std::{collections::VecDeque, path::Path, time::Instant};

use serde::{Deserialize, Serialize};

use crate::jsonl::{self, JsonLines};

/// Name in the run's folder.
const FILE: &str = "timeline.jsonl";
/// Largest file. A step of eight micro-batches takes about 6 kB, so some 600 steps.
const MAX_BYTES: u64 = 4 << 20;
/// Steps that are kept in memory.
const RECENT: usize = 16;

/// A part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// The head's forward pass.
    HeadForward,
    /// The activation to bytes.
    Encode,
    /// From the first byte sent to the last byte at the cloud.
    Uplink,
    /// All that the cloud does: decoding, tail forward, loss, tail backward, its update, encoding.
    Tail,
    /// From the cloud's first byte sent to the last byte here.
    Downlink,
    /// The gradient from bytes.
    Decode,
    /// The head's backward pass.
    HeadBackward,
    /// The optimiser's step on the head.
    Update,
}

/// What can be busy at the same time as something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    Edge,
    Uplink,
    Cloud,
    Downlink,
}

impl Lane {
    /// In the order of a step.
    pub const ALL: [Lane; 8] = [
        Lane::HeadForward,
        Lane::Encode,
        Lane::Uplink,
        Lane::Tail,
        Lane::Downlink,
        Lane::Decode,
        Lane::HeadBackward,
        Lane::Update,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Lane::HeadForward => "head forward",
            Lane::Encode => "encode",
            Lane::Uplink => "uplink",
            Lane::Tail => "tail",
            Lane::Downlink => "downlink",
            Lane::Decode => "decode",
            Lane::HeadBackward => "head backward",
            Lane::Update => "update",
        }
    }

    pub fn resource(self) -> Resource {
        match self {
            Lane::Uplink => Resource::Uplink,
            Lane::Tail => Resource::Cloud,
            Lane::Downlink => Resource::Downlink,
            _ => Resource::Edge,
        }
    }
}

impl Resource {
    pub const ALL: [Resource; 4] =
        [Resource::Edge, Resource::Uplink, Resource::Cloud, Resource::Downlink];
}

/// A part of one micro-batch of a step; milliseconds since the run's process began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Stands once in the step's line of the file.
    #[serde(skip)]
    pub step: u64,
    /// From 0.
    pub micro_batch: u32,
    pub lane: Lane,
    pub start_ms: f64,
    pub end_ms: f64,
}

/// All spans of one step: a line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpans {
    pub step: u64,
    pub spans: Vec<Span>,
}

/// The share of the step's busy time that ran while something else ran as well, 0 to 1.
///
/// A resource (edge, uplink, cloud, downlink) is busy while any of its spans runs. The busy time of a
/// step is the sum of the four; of it counts, for each resource, the time in which at least one of
/// the other three is busy too. So 0 is one thing after the other, and 1 is that none ever ran alone.
/// Two spans of the same resource at a time, such as two micro-batches on the way up, are no overlap.
/// 0 if nothing was busy.
pub fn overlap(spans: &[Span]) -> f64 {
    // Where the number of running spans of a resource changes.
    let mut changes: Vec<(f64, usize, i32)> = Vec::with_capacity(2 * spans.len());
    let real = |s: &&Span| s.start_ms.is_finite() && s.end_ms.is_finite() && s.end_ms > s.start_ms;
    for span in spans.iter().filter(real) {
        let resource = span.lane.resource() as usize;
        changes.push((span.start_ms, resource, 1));
        changes.push((span.end_ms, resource, -1));
    }
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut running, mut busy, mut shared) = ([0i32; Resource::ALL.len()], 0.0, 0.0);
    let mut since = 0.0;
    for (at, resource, change) in changes {
        let active = running.iter().filter(|&&n| n > 0).count() as f64;
        let time = active * (at - since);
        busy += time;
        if active > 1.0 {
            shared += time;
        }
        running[resource] += change;
        since = at;
    }
    if busy > 0.0 { shared / busy } else { 0.0 }
}

/// Turns instants into a run's milliseconds; can be copied into tasks.
#[derive(Debug, Clone, Copy)]
pub struct TimelineClock(Instant);

impl TimelineClock {
    pub fn ms(self, at: Instant) -> f64 {
        at.saturating_duration_since(self.0).as_secs_f64() * 1e3
    }

    pub fn now_ms(self) -> f64 {
        self.ms(Instant::now())
    }
}

/// The spans of a run as it goes on.
pub struct Timeline {
    lines: JsonLines,
    bytes: u64,
    max_bytes: u64,
    /// Every which step is written.
    every: u64,
    clock: TimelineClock,
    /// Steps that have begun and not ended.
    open: Vec<StepSpans>,
    recent: VecDeque<StepSpans>,
}

impl Timeline {
    /// In the folder of a run that is at `step`.
    pub fn open(dir: &Path, step: u64) -> Result<Self, String> {
        Self::open_within(dir, step, MAX_BYTES)
    }

    fn open_within(dir: &Path, step: u64, max_bytes: u64) -> Result<Self, String> {
        let mut timeline = Self {
            lines: JsonLines::open(dir.join(FILE))?,
            bytes: 0,
            max_bytes,
            every: 1,
            clock: TimelineClock(Instant::now()),
            open: Vec::new(),
            recent: VecDeque::new(),
        };
        timeline.rewind(step)?;
        Ok(timeline)
    }

    pub fn clock(&self) -> TimelineClock {
        self.clock
    }

    /// Notes a part of a step that is not over; parts may come in any order.
    pub fn add(&mut self, span: Span) {
        match self.open.iter_mut().find(|open| open.step == span.step) {
            Some(open) => open.spans.push(span),
            None => self.open.push(StepSpans { step: span.step, spans: vec![span] }),
        }
    }

    /// Ends a step; gives its overlap, none if nothing was noted.
    pub fn end(&mut self, step: u64) -> Result<Option<f64>, String> {
        let Some(at) = self.open.iter().position(|open| open.step == step) else {
            return Ok(None);
        };
        let done = self.open.swap_remove(at);
        if step.is_multiple_of(self.every) {
            self.bytes += self.lines.write(&done)?;
            if self.bytes > self.max_bytes {
                self.thin()?;
            }
        }
        let share = overlap(&done.spans);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(done);
        Ok(Some(share))
    }

    /// The last steps that have ended, oldest first.
    pub fn recent(&self) -> impl Iterator<Item = &StepSpans> {
        self.recent.iter()
    }

    /// Forgets steps that have not ended: after a broken connection they are taken again.
    pub fn forget_open(&mut self) {
        self.open.clear();
    }

    /// Drops all after `step`, and steps that have not ended.
    pub fn rewind(&mut self, step: u64) -> Result<(), String> {
        self.forget_open();
        self.recent.retain(|done| done.step <= step);
        let mut kept = named(self.lines.read()?);
        kept.retain(|done| done.step <= step);
        self.bytes = self.lines.replace(&kept)?;
        Ok(())
    }

    /// Drops every second step, and again, until half of the room is free.
    fn thin(&mut self) -> Result<(), String> {
        let mut kept = named(self.lines.read()?);
        let bytes = |step: &StepSpans| jsonl::line(step).len() as u64;
        let size = |steps: &[StepSpans]| steps.iter().map(bytes).sum::<u64>();
        while kept.len() > 1 && size(&kept) > self.max_bytes / 2 {
            self.every *= 2;
            kept.retain(|done| done.step.is_multiple_of(self.every));
        }
        self.bytes = self.lines.replace(&kept)?;
        Ok(())
    }
}

/// The recorded steps of a run, in their order; none if there is no file.
pub fn recorded_steps(dir: &Path) -> Result<Vec<StepSpans>, String> {
    Ok(named(jsonl::read(&dir.join(FILE))?))
}

/// With the number of the step in each span, where a line does not repeat it.
fn named(mut steps: Vec<StepSpans>) -> Vec<StepSpans> {
    for StepSpans { step, spans } in &mut steps {
        spans.iter_mut().for_each(|span| span.step = *step);
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
    };

    use proptest::prelude::*;

    use super::*;

    fn span(lane: Lane, start_ms: f64, end_ms: f64) -> Span {
        Span { step: 1, micro_batch: 0, lane, start_ms, end_ms }
    }

    /// The definition, looked at millisecond by millisecond.
    fn overlap_by_sampling(spans: &[Span]) -> f64 {
        let (mut busy, mut shared) = (0u32, 0u32);
        for at in (0..400).map(|ms| f64::from(ms) + 0.5) {
            let runs = |r: &&Resource| {
                let of = |s: &Span| s.lane.resource() == **r && s.start_ms < at && at < s.end_ms;
                spans.iter().any(of)
            };
            let active = Resource::ALL.iter().filter(runs).count() as u32;
            busy += active;
            shared += if active > 1 { active } else { 0 };
        }
        if busy == 0 { 0.0 } else { f64::from(shared) / f64::from(busy) }
    }

    fn any_span() -> impl Strategy<Value = Span> {
        (0usize..8, 0u32..200, 0u32..200).prop_map(|(lane, start, length)| {
            span(Lane::ALL[lane], start.into(), (start + length).into())
        })
    }

    proptest! {
        #[test]
        fn overlap_is_what_sampling_finds(spans in prop::collection::vec(any_span(), 0..24)) {
            let share = overlap(&spans);
            prop_assert!((0.0..=1.0).contains(&share), "{share}");
            prop_assert!((share - overlap_by_sampling(&spans)).abs() < 1e-9);
        }

        #[test]
        fn one_thing_after_the_other_never_overlaps(
            parts in prop::collection::vec((0usize..8, 0.0f64..50.0, 0.0f64..50.0), 0..24),
        ) {
            let mut at = 0.0;
            let spans: Vec<Span> = parts.into_iter().map(|(lane, pause, length)| {
                let start = at + pause;
                at = start + length;
                span(Lane::ALL[lane], start, at)
            }).collect();
            prop_assert_eq!(overlap(&spans), 0.0);
        }
    }

    #[test]
    fn overlap_of_known_steps() {
        assert_eq!(overlap(&[]), 0.0);
        // Up 0 to 10, tail 5 to 15: of 20 busy milliseconds, 5 of each have company.
        let half = [span(Lane::Uplink, 0.0, 10.0), span(Lane::Tail, 5.0, 15.0)];
        assert_eq!(overlap(&half), 0.5);
        let whole = [span(Lane::Uplink, 0.0, 10.0), span(Lane::Tail, 0.0, 10.0)];
        assert_eq!(overlap(&whole), 1.0);
        // The edge does one thing at a time, whatever its parts are called.
        let edge = [span(Lane::HeadForward, 0.0, 10.0), span(Lane::HeadBackward, 0.0, 10.0)];
        assert_eq!(overlap(&edge), 0.0);
        assert_eq!(overlap(&[span(Lane::Uplink, f64::NAN, 1.0)]), 0.0);
    }

    fn record(timeline: &mut Timeline, step: u64) {
        for (lane, start_ms) in [(Lane::HeadForward, 0.0), (Lane::Uplink, 1.0)] {
            let span = Span { step, micro_batch: 3, lane, start_ms, end_ms: start_ms + 2.0 };
            timeline.add(span);
        }
        assert_eq!(timeline.end(step), Ok(Some(0.5)));
    }

    #[test]
    fn the_file_follows_the_run_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut timeline = Timeline::open(dir.path(), 0).unwrap();
        (1..=5).for_each(|step| record(&mut timeline, step));
        timeline.add(span(Lane::Tail, 0.0, 1.0));
        timeline.rewind(3).unwrap();
        record(&mut timeline, 4);
        assert_eq!(timeline.end(1), Ok(None), "a step that was not ended is forgotten");
        assert_eq!(timeline.recent().map(|s| s.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
        drop(timeline);

        let path = dir.path().join(FILE);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":5,\"sp").unwrap();
        let mut timeline = Timeline::open(dir.path(), 4).unwrap();
        record(&mut timeline, 5);
        let steps = recorded_steps(dir.path()).unwrap();
        assert_eq!(steps.iter().map(|s| s.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert!(steps.iter().all(|s| s.spans.iter().all(|span| span.step == s.step)));
        assert_eq!(steps[4].spans[1].lane, Lane::Uplink);
    }

    #[test]
    fn a_long_run_keeps_a_small_file_spread_over_it() {
        let dir = tempfile::tempdir().unwrap();
        let (most, last) = (8 << 10, 5000);
        let mut timeline = Timeline::open_within(dir.path(), 0, most).unwrap();
        (1..=last).for_each(|step| record(&mut timeline, step));
        assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() <= most);
        let steps: Vec<u64> = recorded_steps(dir.path()).unwrap().iter().map(|s| s.step).collect();
        assert!(steps.len() > 10, "{steps:?}");
        let apart: Vec<u64> = steps.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(apart.iter().all(|&d| d == apart[0]), "{steps:?}");
        assert!(steps[0] == apart[0] && last - steps[steps.len() - 1] < apart[0], "{steps:?}");
        assert_eq!(timeline.recent().count(), RECENT);
    }
}
