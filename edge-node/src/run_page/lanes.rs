//! The timeline of one step: a row for each part of the work, a bar for each micro-batch.

use serde::Serialize;

use super::chart::{nice, round};
use crate::train::{Lane, Resource, Span, StepSpans, overlap};

/// The picture, in its own units.
const WIDTH: f64 = 1060.0;
const LEFT: f64 = 116.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 8.0;
const ROW: f64 = 20.0;
const GAP: f64 = 8.0;
const BOTTOM: f64 = 40.0;
/// A narrower bar has no room for a number.
const LABELLED: f64 = 16.0;
const TICKS: f64 = 10.0;

/// Spans of one lane that do not run at the same time.
pub struct Row {
    pub lane: Lane,
    pub spans: Vec<Span>,
}

/// The rows of the lanes that have spans, in their order. Spans of a lane that overlap, such as two
/// micro-batches on the way up, get rows of their own.
pub fn rows(spans: &[Span]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for lane in Lane::ALL {
        let mut own: Vec<Span> = spans.iter().copied().filter(|s| s.lane == lane).collect();
        own.sort_by(|a, b| a.start_ms.total_cmp(&b.start_ms));
        let first = rows.len();
        for span in own {
            let free = |row: &&mut Row| row.spans.last().is_none_or(|s| s.end_ms <= span.start_ms);
            match rows[first..].iter_mut().find(free) {
                Some(row) => row.spans.push(span),
                None => rows.push(Row { lane, spans: vec![span] }),
            }
        }
    }
    rows
}

/// What the template draws.
#[derive(Debug, Serialize)]
pub struct StepPicture {
    step: u64,
    description: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    ticks: Vec<(f64, String)>,
    lanes: Vec<LaneLabel>,
    bars: Vec<Bar>,
}

#[derive(Debug, Serialize)]
struct LaneLabel {
    name: &'static str,
    /// Where the lane's rows begin and end.
    top: f64,
    bottom: f64,
}

#[derive(Debug, Serialize)]
struct Bar {
    lane: &'static str,
    /// Which colour.
    resource: &'static str,
    micro_batch: u32,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    /// Whether its number fits.
    labelled: bool,
    start: String,
    end: String,
    length: String,
}

pub fn picture(recorded: &StepSpans) -> StepPicture {
    let spans = &recorded.spans;
    let begin = spans.iter().map(|s| s.start_ms).fold(f64::INFINITY, f64::min);
    let end = spans.iter().map(|s| s.end_ms).fold(f64::NEG_INFINITY, f64::max);
    let total = (end - begin).max(1e-6);
    let x = |ms: f64| LEFT + (ms - begin) / total * (WIDTH - LEFT - RIGHT);
    let (mut lanes, mut bars) = (Vec::<LaneLabel>::new(), Vec::new());
    let mut y = TOP;
    for row in rows(spans) {
        let name = row.lane.name();
        match lanes.last_mut() {
            Some(label) if label.name == name => y = label.bottom,
            Some(label) => y = label.bottom + GAP,
            None => {}
        }
        bars.extend(row.spans.iter().map(|span| bar(span, begin, &x, y)));
        match lanes.last_mut() {
            Some(label) if label.name == name => label.bottom = y + ROW,
            _ => lanes.push(LaneLabel { name, top: y, bottom: y + ROW }),
        }
    }
    let bottom = lanes.last().map_or(TOP, |label| label.bottom) + GAP;
    StepPicture {
        step: recorded.step,
        description: describe(spans, total),
        width: WIDTH,
        height: bottom + BOTTOM,
        left: LEFT,
        right: WIDTH - RIGHT,
        top: TOP,
        bottom,
        ticks: ticks(total, |ms| x(begin + ms)),
        lanes,
        bars,
    }
}

fn bar(span: &Span, begin: f64, x: &impl Fn(f64) -> f64, y: f64) -> Bar {
    let width = x(span.end_ms) - x(span.start_ms);
    let ms = |value: f64| format!("{value:.3}");
    Bar {
        lane: span.lane.name(),
        resource: resource_name(span.lane.resource()),
        micro_batch: span.micro_batch,
        x: round(x(span.start_ms)),
        y: round(y),
        // What took no time to speak of is still seen.
        width: round(width.max(0.75)),
        height: ROW - 3.0,
        labelled: width >= LABELLED,
        start: ms(span.start_ms - begin),
        end: ms(span.end_ms - begin),
        length: ms(span.end_ms - span.start_ms),
    }
}

pub fn resource_name(resource: Resource) -> &'static str {
    match resource {
        Resource::Edge => "edge",
        Resource::Uplink => "uplink",
        Resource::Cloud => "cloud",
        Resource::Downlink => "downlink",
    }
}

fn describe(spans: &[Span], total: f64) -> String {
    let busy = Lane::ALL.map(|lane| {
        let own = spans.iter().filter(|s| s.lane == lane);
        let sum: f64 = own.map(|s| s.end_ms - s.start_ms).sum();
        (sum > 0.0).then(|| format!("{} {sum:.2} ms", lane.name()))
    });
    let busy: Vec<String> = busy.into_iter().flatten().collect();
    let micro_batches = spans.iter().map(|s| s.micro_batch).max().map_or(0, |most| most + 1);
    let parts = if micro_batches == 1 { "one piece" } else { "micro-batches" };
    let count = if micro_batches == 1 { String::new() } else { format!("{micro_batches} ") };
    format!(
        "{total:.2} ms in {count}{parts}, overlap {:.0} %: {}",
        overlap(spans) * 100.0,
        busy.join(", ")
    )
}

fn ticks(total: f64, x: impl Fn(f64) -> f64) -> Vec<(f64, String)> {
    let step = nice(total / TICKS);
    let digits = (2.0 - step.log10()).floor().clamp(0.0, 3.0) as usize;
    let count = (total / step + 1e-9).floor() as u32;
    let tick = |index: u32| {
        let ms = f64::from(index) * step;
        let text = format!("{ms:.digits$}");
        let text =
            if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        (round(x(ms)), text.to_string())
    };
    (0..=count).map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lane: Lane, micro_batch: u32, start_ms: f64, end_ms: f64) -> Span {
        Span { step: 4, micro_batch, lane, start_ms, end_ms }
    }

    #[test]
    fn spans_of_a_row_do_not_run_at_once() {
        let spans = [
            span(Lane::Uplink, 1, 12.0, 30.0),
            span(Lane::HeadForward, 0, 0.0, 10.0),
            span(Lane::Uplink, 0, 10.0, 20.0),
            span(Lane::Uplink, 2, 20.0, 40.0),
        ];
        let rows: Vec<(Lane, Vec<u32>)> = rows(&spans)
            .iter()
            .map(|r| (r.lane, r.spans.iter().map(|s| s.micro_batch).collect()))
            .collect();
        let expected =
            [(Lane::HeadForward, vec![0]), (Lane::Uplink, vec![0, 2]), (Lane::Uplink, vec![1])];
        assert_eq!(rows, expected);
    }

    #[test]
    fn bars_are_in_the_picture_and_in_their_lane() {
        let spans =
            vec![span(Lane::Tail, 0, 105.0, 120.0), span(Lane::HeadForward, 0, 100.0, 105.0)];
        let picture = picture(&StepSpans { step: 4, spans });
        assert_eq!(picture.bars.len(), 2);
        let [head, tail] = [&picture.bars[0], &picture.bars[1]];
        assert_eq!((head.x, head.start.as_str(), head.end.as_str()), (LEFT, "0.000", "5.000"));
        assert_eq!(tail.x + tail.width, WIDTH - RIGHT);
        assert!(tail.y >= picture.lanes[1].top && picture.lanes[1].bottom <= picture.bottom);
        assert_eq!(
            picture.description,
            "20.00 ms in one piece, overlap 0 %: head forward 5.00 ms, tail 15.00 ms"
        );
        assert_eq!(picture.ticks.first().map(|t| t.1.as_str()), Some("0"));
        assert_eq!(picture.ticks.last().map(|t| t.1.as_str()), Some("20"));
    }
}
