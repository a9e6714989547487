//! Rate, queue and round trip over time, as an SVG picture.

use std::fmt::Write;

use super::record::Sample;
use crate::svg::{END, begin};

const WIDTH: f64 = 960.0;
const PANEL: f64 = 200.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const GAP: f64 = 50.0;
const TICKS: u32 = 4;
const UPLINK: &str = "#1f6fb4";
const DOWNLINK: &str = "#c8551b";
const ROUND_TRIP: &str = "#3a7d44";

/// One line of a panel.
struct Line {
    name: &'static str,
    color: &'static str,
    /// Thin and light: what could be, beside what was.
    faint: bool,
    value: fn(&Sample) -> f64,
}

struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "rate, Mbit/s",
        lines: &[
            Line {
                name: "uplink could carry",
                color: UPLINK,
                faint: true,
                value: |s| s.uplink.rate_mbps,
            },
            Line {
                name: "downlink could carry",
                color: DOWNLINK,
                faint: true,
                value: |s| s.downlink.rate_mbps,
            },
            Line {
                name: "uplink carried",
                color: UPLINK,
                faint: false,
                value: |s| s.uplink.carried_mbps,
            },
            Line {
                name: "downlink carried",
                color: DOWNLINK,
                faint: false,
                value: |s| s.downlink.carried_mbps,
            },
        ],
    },
    Panel {
        title: "queue, kB",
        lines: &[
            Line { name: "uplink", color: UPLINK, faint: false, value: |s| s.uplink.queue_kb },
            Line {
                name: "downlink",
                color: DOWNLINK,
                faint: false,
                value: |s| s.downlink.queue_kb,
            },
        ],
    },
    Panel {
        title: "round trip, ms",
        lines: &[Line {
            name: "measured by senders",
            color: ROUND_TRIP,
            faint: false,
            value: |s| s.rtt_ms,
        }],
    },
];

/// The picture; `title` says of what.
pub fn svg(title: &str, samples: &[Sample]) -> String {
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP);
    let mut out = begin(title, (WIDTH, height), LEFT);
    let times = (samples.first().map_or(0.0, |s| s.at_s), samples.last().map_or(1.0, |s| s.at_s));
    for (index, panel) in PANELS.iter().enumerate() {
        draw(&mut out, panel, TOP + index as f64 * (PANEL + GAP), times, samples);
    }
    out.push_str(END);
    out
}

fn draw(out: &mut String, panel: &Panel, top: f64, times: (f64, f64), samples: &[Sample]) {
    let values = panel.lines.iter().flat_map(|line| samples.iter().map(line.value));
    let most = round_up(values.filter(|v| v.is_finite()).fold(0.0, f64::max));
    let span = (times.1 - times.0).max(1e-9);
    let x = |t: f64| LEFT + (t - times.0) / span * (WIDTH - LEFT - RIGHT);
    let y = |v: f64| top + PANEL - v / most * PANEL;
    for tick in 0..=TICKS {
        let share = f64::from(tick) / f64::from(TICKS);
        let (value, at) = (most * share, times.0 + span * share);
        let _ = writeln!(
            out,
            r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{}</text><text x="{:.1}" y="{}" text-anchor="middle">{at:.1} s</text>"##,
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0,
            number(value),
            x(at),
            top + PANEL + 16.0,
            y = y(value),
        );
    }
    let _ = writeln!(out, r#"<text x="{LEFT}" y="{}">{}</text>"#, top - 6.0, panel.title);
    for (index, line) in panel.lines.iter().rev().enumerate() {
        let (width, opacity) = if line.faint { (1.0, 0.45) } else { (1.5, 1.0) };
        let right = WIDTH - RIGHT - index as f64 * 150.0;
        let _ = writeln!(
            out,
            r#"<text x="{right}" y="{}" text-anchor="end" fill="{}" fill-opacity="{opacity}">{}</text>"#,
            top - 6.0,
            line.color,
            line.name
        );
        for run in runs(samples, line.value) {
            let points: String =
                run.iter().map(|(t, v)| format!("{:.1},{:.1} ", x(*t), y(*v))).collect();
            let _ = writeln!(
                out,
                r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="{width}" stroke-opacity="{opacity}"/>"#,
                points.trim_end(),
                line.color
            );
        }
    }
}

/// Stretches in which there is a value.
fn runs(samples: &[Sample], value: fn(&Sample) -> f64) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for sample in samples {
        let v = value(sample);
        match runs.last_mut() {
            Some(run) if v.is_finite() => run.push((sample.at_s, v)),
            Some(run) if !run.is_empty() => runs.push(Vec::new()),
            _ => {}
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|step| step * power >= value * 0.999);
    step.unwrap_or(10.0) * power
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::record::LaneSample, *};

    #[test]
    fn draws_each_line_within_its_panel() {
        let lane = |v| LaneSample { carried_mbps: v, rate_mbps: 100.0, queue_kb: 10.0 * v };
        let samples: Vec<Sample> = (0..50)
            .map(|i| {
                let v = f64::from(i % 10) * 10.0;
                let rtt_ms = if i < 10 { f64::NAN } else { 20.0 + v };
                Sample {
                    at_s: f64::from(i) / 10.0,
                    uplink: lane(v),
                    downlink: lane(100.0 - v),
                    rtt_ms,
                }
            })
            .collect();
        let picture = svg("a <test> & more", &samples);
        assert!(picture.contains("a &lt;test&gt; &amp; more"));
        assert_eq!(picture.matches("<polyline").count(), 7);
        assert!(!picture.contains("NaN"));
        for points in picture.split("points=\"").skip(1) {
            for point in points.split('"').next().unwrap_or_default().split(' ') {
                let (x, y) = point.split_once(',').expect("a pair");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..1000.0).contains(&y));
            }
        }
    }

    #[test]
    fn nothing_to_draw_is_still_a_picture() {
        let picture = svg("empty", &[]);
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert_eq!((round_up(0.0), round_up(73.0), round_up(230.0)), (1.0, 100.0, 250.0));
    }
}
