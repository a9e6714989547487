//! Recorded steps in the Trace Event Format, which Perfetto and chrome://tracing read.
//!
//! Edge, link and cloud are its processes, the rows of [`super::lanes`] its threads: the format wants
//! events of a thread to be one inside the other or apart.

use serde_json::{Value, json};

use super::lanes::{resource_name, rows};
use crate::train::{Resource, Span, StepSpans, overlap};

/// The thread that shows whole steps.
const STEPS: usize = 0;

/// The trace, as JSON.
pub fn chrome_trace(steps: &[StepSpans]) -> Vec<u8> {
    let steps = one_clock(steps);
    let mut events: Vec<Value> = [(1, "edge"), (2, "link"), (3, "cloud")]
        .into_iter()
        .flat_map(|(process, name)| named("process", process, STEPS, name))
        .collect();
    events.extend(named("thread", 1, STEPS, "step"));
    events.extend(steps.iter().filter_map(whole_step));
    let spans: Vec<Span> = steps.iter().flat_map(|s| s.spans.iter().copied()).collect();
    for (index, row) in rows(&spans).into_iter().enumerate() {
        let (process, thread) = (process(row.lane.resource()), index + 1);
        events.extend(named("thread", process, thread, row.lane.name()));
        events.extend(row.spans.iter().map(|span| event(span, process, thread)));
    }
    let trace = json!({ "displayTimeUnit": "ms", "traceEvents": events });
    serde_json::to_vec(&trace).expect("plain data")
}

fn process(resource: Resource) -> u32 {
    match resource {
        Resource::Edge => 1,
        Resource::Uplink | Resource::Downlink => 2,
        Resource::Cloud => 3,
    }
}

/// Name and place of a process or thread.
fn named(what: &str, process: u32, thread: usize, name: &str) -> [Value; 2] {
    let place = if what == "process" { process as usize } else { thread };
    let event = |kind: &str, args: Value| {
        json!({ "name": format!("{what}_{kind}"), "ph": "M", "pid": process, "tid": thread,
                "args": args })
    };
    [event("name", json!({ "name": name })), event("sort_index", json!({ "sort_index": place }))]
}

/// A complete event; the format counts microseconds.
fn complete(name: String, category: &str, at: (u32, usize), ms: (f64, f64), args: Value) -> Value {
    let (start, length) = (ms.0 * 1e3, (ms.1 - ms.0).max(0.0) * 1e3);
    json!({ "name": name, "cat": category, "ph": "X", "ts": start, "dur": length, "pid": at.0,
            "tid": at.1, "args": args })
}

fn event(span: &Span, process: u32, thread: usize) -> Value {
    let Span { step, micro_batch, lane, start_ms, end_ms } = *span;
    let args = json!({ "step": step, "micro_batch": micro_batch });
    let name = format!("{} {micro_batch}", lane.name());
    let category = resource_name(lane.resource());
    complete(name, category, (process, thread), (start_ms, end_ms), args)
}

fn whole_step(step: &StepSpans) -> Option<Value> {
    let (begin, end) = extent(step)?;
    let args = json!({ "step": step.step, "overlap": overlap(&step.spans) });
    Some(complete(format!("step {}", step.step), "step", (1, STEPS), (begin, end), args))
}

fn extent(step: &StepSpans) -> Option<(f64, f64)> {
    let begin = step.spans.iter().map(|s| s.start_ms).min_by(f64::total_cmp)?;
    let end = step.spans.iter().map(|s| s.end_ms).max_by(f64::total_cmp)?;
    Some((begin, end))
}

/// Each process of a run counts from 0: those that came later are moved behind those before.
fn one_clock(steps: &[StepSpans]) -> Vec<StepSpans> {
    let (mut offset, mut last) = (0.0, (0.0, 0.0));
    let mut moved = steps.to_vec();
    for step in &mut moved {
        let Some((begin, end)) = extent(step) else { continue };
        if begin < last.0 {
            offset += last.1;
        }
        last = (begin, end);
        for span in &mut step.spans {
            (span.start_ms, span.end_ms) = (span.start_ms + offset, span.end_ms + offset);
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Lane;

    #[test]
    fn a_resumed_run_goes_on_behind_itself() {
        let step = |step, start_ms| StepSpans {
            step,
            spans: vec![Span {
                step,
                micro_batch: 0,
                lane: Lane::Tail,
                start_ms,
                end_ms: start_ms + 10.0,
            }],
        };
        // The second process begins with step 3.
        let steps = one_clock(&[step(1, 5.0), step(2, 20.0), step(3, 1.0), step(4, 12.0)]);
        let starts: Vec<f64> = steps.iter().map(|s| s.spans[0].start_ms).collect();
        assert_eq!(starts, [5.0, 20.0, 31.0, 42.0]);
    }
}
