//! A plan as an SVG picture: a bar for each choice, stacked by its parts; a mark where it was measured.

use std::fmt::Write;

use super::Row;
use crate::svg::{END, begin, escape};

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 16.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 80.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const TICKS: u32 = 5;

/// Of head, encode, uplink, tail, downlink, decode.
const COLOURS: [&str; 6] = ["#1f6fb4", "#7fb2dd", "#c8551b", "#3a7d44", "#e3a172", "#93c29a"];

/// The picture; `title` says of what. Bars longer than `most_ms` are cut off there.
pub fn svg(title: &str, rows: &[Row], most_ms: f64) -> String {
    let height = TOP + rows.len() as f64 * STEP + 50.0;
    let mut out = begin(title, (WIDTH, height), MARGIN);
    legend(&mut out, rows);
    let most = most_ms.max(1e-6);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    axis(&mut out, most, scale, height);
    for (index, row) in rows.iter().enumerate() {
        bar(&mut out, row, TOP + index as f64 * STEP, most, scale);
    }
    out.push_str(END);
    out
}

/// Where the axis ends: the worst of the better half gets its whole bar, and twice that.
pub fn reach(rows: &[Row]) -> f64 {
    let mut totals: Vec<f64> = rows.iter().map(|r| r.total_ms).collect();
    totals.sort_by(f64::total_cmp);
    let (middle, last) = (totals.get(totals.len() / 2), totals.last());
    match (middle, last) {
        (Some(&middle), Some(&last)) => last.min(2.0 * middle),
        _ => 1.0,
    }
}

fn legend(out: &mut String, rows: &[Row]) {
    let Some(row) = rows.first() else { return };
    for (index, ((name, _), colour)) in row.parts().into_iter().zip(COLOURS).enumerate() {
        let x = LEFT + index as f64 * 95.0;
        let _ = writeln!(
            out,
            r##"<rect x="{x}" y="44" width="12" height="12" fill="{colour}"/><text x="{}" y="54">{name}</text>"##,
            x + 17.0
        );
    }
    if rows.iter().any(|r| r.measured_ms.is_some()) {
        let x = LEFT + 6.0 * 95.0;
        let _ = writeln!(
            out,
            r##"<path d="M{x} 43v14" stroke="#000" stroke-width="2"/><text x="{}" y="54">measured</text>"##,
            x + 7.0
        );
    }
}

fn axis(out: &mut String, most: f64, scale: f64, height: f64) {
    for tick in 0..=TICKS {
        let ms = most * f64::from(tick) / f64::from(TICKS);
        let x = LEFT + ms * scale;
        let (top, bottom) = (TOP - 6.0, height - 36.0);
        let _ = writeln!(
            out,
            r##"<path d="M{x:.1} {top}V{bottom}" stroke="#ddd"/><text x="{x:.1}" y="{}" text-anchor="middle">{ms:.1} ms</text>"##,
            bottom + 18.0
        );
    }
}

fn bar(out: &mut String, row: &Row, y: f64, most: f64, scale: f64) {
    let weight = if row.chosen { "bold" } else { "normal" };
    let mark = if row.chosen { "▶ " } else { "" };
    let codec = row.codec.as_deref().map_or(String::new(), |c| format!(" · {c}"));
    let grey = if row.forbidden.is_some() { 0.35 } else { 1.0 };
    let base = y + BAR - 4.0;
    let _ = writeln!(
        out,
        r##"<text x="{}" y="{base}" text-anchor="end" font-weight="{weight}">{mark}{} {}{codec}</text>"##,
        LEFT - 8.0,
        row.split_point,
        escape(&row.after)
    );
    let mut at = 0.0f64;
    for ((_, ms), colour) in row.parts().into_iter().zip(COLOURS) {
        let end = (at + ms).min(most);
        let width = ((end - at) * scale).max(0.0);
        if width > 0.0 {
            let x = LEFT + at * scale;
            let _ = writeln!(
                out,
                r##"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="{BAR}" fill="{colour}" fill-opacity="{grey}"/>"##
            );
        }
        at = end;
    }
    let more = if row.total_ms > most { "→ " } else { "" };
    let _ = writeln!(
        out,
        r##"<text x="{:.1}" y="{base}">{more}{:.1}</text>"##,
        LEFT + at * scale + 6.0,
        row.total_ms
    );
    if let Some(measured) = row.measured_ms.filter(|&ms| ms <= most) {
        let x = LEFT + measured * scale;
        let _ = writeln!(
            out,
            r##"<path d="M{x:.1} {}v{}" stroke="#000" stroke-width="2"/>"##,
            y - 2.0,
            BAR + 4.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{Choice, Predicted},
        serve::Timing,
    };

    fn row(split: usize, head_ms: f64, uplink_ms: f64, chosen: bool) -> Row {
        let timing = Timing { head_ms, uplink_ms, ..Timing::default() };
        let choice = Choice { split, codec: Some("int8".into()) };
        let (bytes, energy_mj, cost, score, fits, forbidden) = (9, 1.0, 0.0, 0.0, true, None);
        let predicted =
            Predicted { choice, timing, bytes, energy_mj, cost, score, fits, forbidden };
        Row::new(&predicted, "a<b", chosen)
    }

    #[test]
    fn every_part_has_its_rectangle_within_the_picture() {
        let mut rows = vec![row(1, 5.0, 10.0, true), row(2, 8.0, 2000.0, false)];
        rows[0].measured_ms = Some(14.0);
        let picture = svg("a & b", &rows, 30.0);
        assert!(picture.contains("a &amp; b") && picture.contains("▶ 1 a&lt;b · int8"));
        // Two parts each that are not 0, the legend, the ground.
        assert_eq!(picture.matches("<rect").count(), 4 + 6 + 1);
        assert!(picture.contains("→ 2008.0") && picture.contains("measured"));
        assert!(!picture.contains("NaN"));
        assert!(reach(&rows) >= 15.0);
        assert_eq!(rows[0].error().map(|e| (e * 14.0).round()), Some(1.0));
    }
}
