//! One chart: its axes, and where each point is in the picture.
//!
//! This computes; the markup is in the page's template.

use std::fmt::Write;

use serde::Serialize;

/// The picture, in its own units.
const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// About as many labels as fit an axis.
const X_TICKS: f64 = 6.0;
const Y_TICKS: f64 = 5.0;

/// How values are shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// With this unit; the axis begins at 0 or below.
    FromZero(&'static str),
    /// The axis spans the values only, unless 0 is near.
    Close,
    /// The same of percents; no further than 100.
    ClosePercent,
    /// From 0 to 100.
    Percent,
}

impl Scale {
    fn unit(self) -> &'static str {
        match self {
            Self::FromZero(unit) => unit,
            Self::Close => "",
            Self::ClosePercent | Self::Percent => "%",
        }
    }

    /// The ends of an axis for values in these bounds.
    fn widen(self, (low, high): (f64, f64)) -> (f64, f64) {
        // Something that is constant gets room, or it would be the axis.
        let room = if low == 0.0 { 1.0 } else { 0.1 * low.abs() };
        let high = if high > low { high } else { low + room };
        match self {
            Self::Percent => (low.min(0.0), high.max(100.0)),
            _ if low > 0.0 && low < 0.7 * high => (0.0, high),
            Self::FromZero(_) => (low.min(0.0), high),
            Self::Close | Self::ClosePercent => (low, high),
        }
    }

    fn most(self) -> f64 {
        match self {
            Self::ClosePercent | Self::Percent => 100.0,
            _ => f64::INFINITY,
        }
    }
}

/// A line, or marks, over steps.
pub struct Series {
    name: &'static str,
    /// A class of the style.
    colour: &'static str,
    marked: bool,
    points: Vec<(u64, Option<f64>)>,
}

impl Series {
    pub fn line(name: &'static str, colour: &'static str, points: Vec<(u64, Option<f64>)>) -> Self {
        Self { name, colour, marked: false, points }
    }

    /// With a mark at each point, for values that are few.
    pub fn marked(
        name: &'static str,
        colour: &'static str,
        points: Vec<(u64, Option<f64>)>,
    ) -> Self {
        Self { name, colour, marked: true, points }
    }

    /// What can be drawn.
    fn values(&self) -> impl Iterator<Item = (u64, f64)> {
        self.points.iter().filter_map(|(step, v)| Some((*step, (*v).filter(|v| v.is_finite())?)))
    }

    /// Stretches without a gap.
    fn stretches(&self) -> Vec<Vec<(u64, f64)>> {
        let mut stretches = vec![Vec::new()];
        for (step, value) in &self.points {
            match (value.filter(|v| v.is_finite()), stretches.last_mut()) {
                (Some(value), Some(stretch)) => stretch.push((*step, value)),
                (None, Some(stretch)) if !stretch.is_empty() => stretches.push(Vec::new()),
                _ => {}
            }
        }
        stretches.retain(|stretch| !stretch.is_empty());
        stretches
    }
}

/// What the template draws.
#[derive(Debug, Serialize)]
pub struct Chart {
    pub id: &'static str,
    pub title: &'static str,
    /// Empty if the values have none.
    unit: &'static str,
    /// The picture in words.
    description: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    lines: Vec<DrawnLine>,
    /// For the script, in JSON.
    hover: String,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Debug, Serialize)]
struct DrawnLine {
    name: &'static str,
    colour: &'static str,
    marked: bool,
    /// `x,y x,y`, one text for each stretch without a gap.
    stretches: Vec<String>,
    marks: Vec<(f64, f64)>,
}

/// What the script knows of a chart.
#[derive(Serialize)]
struct Hover<'a> {
    unit: &'a str,
    left: f64,
    right: f64,
    first: f64,
    last: f64,
    series: Vec<HoverSeries<'a>>,
}

#[derive(Serialize)]
struct HoverSeries<'a> {
    name: &'a str,
    steps: Vec<u64>,
    values: Vec<f64>,
}

impl Chart {
    pub fn new(id: &'static str, title: &'static str, scale: Scale, series: Vec<Series>) -> Self {
        let series: Vec<Series> =
            series.into_iter().filter(|s| s.values().next().is_some()).collect();
        let unit = scale.unit();
        let steps = series.iter().flat_map(|s| s.values().map(|(step, _)| step as f64));
        let x = Axis::exact(bounds(steps), (LEFT, WIDTH - RIGHT));
        let values = series.iter().flat_map(|s| s.values().map(|(_, value)| value));
        let y = Axis::rounded(scale.widen(bounds(values)), scale.most(), (HEIGHT - BOTTOM, TOP));
        let hover = Hover {
            unit,
            left: LEFT,
            right: WIDTH - RIGHT,
            first: x.low,
            last: x.high,
            series: series.iter().map(HoverSeries::new).collect(),
        };
        Self {
            id,
            title,
            unit,
            description: describe(&series, unit),
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: WIDTH - RIGHT,
            top: TOP,
            bottom: HEIGHT - BOTTOM,
            x_ticks: x.ticks(),
            y_ticks: y.ticks(),
            lines: series.iter().map(|s| DrawnLine::new(s, &x, &y)).collect(),
            hover: serde_json::to_string(&hover).expect("plain data"),
        }
    }

    pub fn has_points(&self) -> bool {
        !self.lines.is_empty()
    }
}

impl<'a> HoverSeries<'a> {
    fn new(series: &'a Series) -> Self {
        let (steps, values) = series.values().unzip();
        Self { name: series.name, steps, values }
    }
}

impl DrawnLine {
    fn new(series: &Series, x: &Axis, y: &Axis) -> Self {
        let place = |(step, value): (u64, f64)| (round(x.at(step as f64)), round(y.at(value)));
        let text = |stretch: Vec<(u64, f64)>| {
            let mut text = String::new();
            for (x, y) in stretch.into_iter().map(place) {
                let _ = write!(text, "{x},{y} ");
            }
            text.trim_end().to_string()
        };
        // A stretch of a single point has no line, so it gets a mark.
        let alone = series.stretches().into_iter().filter(|s| s.len() == 1).flatten();
        let marks = match series.marked {
            true => series.values().map(place).collect(),
            false => alone.map(place).collect(),
        };
        Self {
            name: series.name,
            colour: series.colour,
            marked: series.marked,
            stretches: series.stretches().into_iter().map(text).collect(),
            marks,
        }
    }
}

/// `training: from 2.3 at step 1 to 0.1 at step 90, lowest 0.09; validation: …`
fn describe(series: &[Series], unit: &str) -> String {
    let one = |s: &Series| {
        let values: Vec<(u64, f64)> = s.values().collect();
        let [(first, from), .., (last, to)] = values[..] else {
            return values.first().map_or(String::new(), |(step, v)| {
                format!("{}: {} {unit} at step {step}", s.name, short(*v))
            });
        };
        let bounds = values.iter().fold((from, from), |(l, h), (_, v)| (l.min(*v), h.max(*v)));
        let [from, to, low, high] = [from, to, bounds.0, bounds.1].map(short);
        format!(
            "{}: from {from} {unit} at step {first} to {to} {unit} at step {last}, between {low} and \
             {high}",
            s.name
        )
    };
    let texts: Vec<String> = series.iter().map(one).collect();
    texts.join("; ").replace("  ", " ")
}

/// A linear axis and where it lies in the picture.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
    place: (f64, f64),
}

impl Axis {
    /// From end to end, of whole numbers.
    fn exact((low, high): (f64, f64), place: (f64, f64)) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self { low, high, step: nice((high - low) / X_TICKS).max(1.0).ceil(), place }
    }

    /// Widened to whole ticks, but not beyond `most`.
    fn rounded((low, high): (f64, f64), most: f64, place: (f64, f64)) -> Self {
        let step = nice((high - low) / Y_TICKS);
        let low = (low / step).floor() * step;
        let high = ((high / step).ceil() * step).min(most.max(high));
        Self { low, high, step, place }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.place.0 + share * (self.place.1 - self.place.0)
    }

    fn ticks(&self) -> Vec<Tick> {
        let first = (self.low / self.step - 1e-9).ceil();
        let last = (self.high / self.step + 1e-9).floor();
        let digits = (-self.step.log10()).ceil().clamp(0.0, 12.0) as usize;
        // 2.5 needs one digit more than its power of ten.
        let digits = if exact_in(self.step, digits) { digits } else { digits + 1 };
        let mut ticks = Vec::new();
        let mut index = first;
        while index <= last {
            // Plus nothing, or minus zero would be shown with its sign.
            let value = index * self.step + 0.0;
            let label = match digits {
                0..=6 => format!("{value:.digits$}"),
                _ if value == 0.0 => "0".into(),
                _ => format!("{value:.1e}"),
            };
            ticks.push(Tick { at: round(self.at(value)), label });
            index += 1.0;
        }
        ticks
    }
}

fn exact_in(step: f64, digits: usize) -> bool {
    let scaled = step * 10f64.powi(digits as i32);
    (scaled - scaled.round()).abs() < 1e-6 * scaled.abs()
}

/// Least and greatest; 0 and 1 of nothing.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
pub fn nice(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0].into_iter().find(|step| step * power >= value * 0.999);
    step.unwrap_or(10.0) * power
}

/// To a hundredth of a picture's unit.
pub fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// With four digits.
pub fn short(value: f64) -> String {
    format!("{value:.3e}").parse::<f64>().unwrap_or(value).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| tick.label).collect()
    }

    fn axis(scale: Scale, values: &[f64]) -> Vec<String> {
        let ends = scale.widen(bounds(values.iter().copied()));
        labels(&Axis::rounded(ends, scale.most(), (100.0, 0.0)))
    }

    #[test]
    fn axes_have_round_numbers() {
        let from_zero = Scale::FromZero("");
        assert_eq!(axis(from_zero, &[0.01, 2.3]), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(axis(from_zero, &[29.0, 32.0]), ["0", "10", "20", "30", "40"]);
        assert_eq!(axis(from_zero, &[0.00012, 0.0009])[1], "0.0002");
        assert_eq!(axis(from_zero, &[1e-9, 3.9e-9]), ["0", "1.0e-9", "2.0e-9", "3.0e-9", "4.0e-9"]);
        assert_eq!(axis(from_zero, &[0.0; 3]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(axis(Scale::ClosePercent, &[92.0, 99.5]), ["92", "94", "96", "98", "100"]);
        assert_eq!(axis(Scale::Percent, &[0.0, 0.0]), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(axis(Scale::Close, &[20.0, 20.0]).first().map(String::as_str), Some("20.0"));
        let steps = Axis::exact((1.0, 1600.0), (0.0, 100.0));
        assert_eq!(labels(&steps), ["500", "1000", "1500"]);
    }

    proptest! {
        #[test]
        fn every_point_is_within_the_picture(
            values in prop::collection::vec(
                prop_oneof![4 => -1e6f64..1e6, 1 => Just(f64::NAN), 1 => Just(1e-12)], 0..40),
        ) {
            let points = values.iter().enumerate().map(|(i, v)| (i as u64 + 1, Some(*v))).collect();
            let finite = values.iter().filter(|v| v.is_finite()).count();
            let chart = Chart::new("a", "A", Scale::Close, vec![Series::marked("a", "edge", points)]);
            prop_assert_eq!(chart.has_points(), finite > 0);
            let marks: Vec<_> = chart.lines.iter().flat_map(|l| l.marks.clone()).collect();
            prop_assert_eq!(marks.len(), finite);
            for (x, y) in marks {
                prop_assert!((chart.left..=chart.right).contains(&x), "{x}");
                prop_assert!((chart.top - 0.01..=chart.bottom + 0.01).contains(&y), "{y}");
            }
            prop_assert!(chart.y_ticks.len() >= 2 && chart.y_ticks.len() < 12, "{:?}", chart.y_ticks);
        }
    }

    #[test]
    fn a_gap_breaks_the_line() {
        let points =
            vec![(1, Some(1.0)), (2, Some(2.0)), (3, Some(f64::NAN)), (4, None), (5, Some(3.0))];
        let chart =
            Chart::new("a", "A", Scale::FromZero("ms"), vec![Series::line("x", "edge", points)]);
        let line = &chart.lines[0];
        assert_eq!((line.stretches.len(), line.marks.len()), (2, 1), "{line:?}");
        let expected = "x: from 1 ms at step 1 to 3 ms at step 5, between 1 and 3";
        assert_eq!(chart.description, expected);
    }
}
