//! What a run's figures were over its steps: the charts, and the same as tables.

use serde::Serialize;

use super::chart::{Chart, Scale, Series, short};
use crate::train::{Score, Stepped, Validated};

/// Points of a curve at most; more could not be told apart on a screen.
const MOST_POINTS: usize = 400;
const MIB: f64 = (1 << 20) as f64;

/// A row of consecutive steps that became one point: means, except where a field says otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// The last of them.
    pub step: u64,
    /// Of the last.
    pub epoch: u64,
    loss: f64,
    #[serde(flatten)]
    score: Score,
    head_ms: f64,
    link_ms: f64,
    tail_ms: f64,
    step_ms: f64,
    overlap: Option<f64>,
    gradient_norm: Option<f64>,
    /// Of the last step.
    learning_rate: f64,
    /// MiB since the run began.
    uplink: f64,
    downlink: f64,
}

/// Steps as rows, as few as the curves need.
pub fn rows(steps: &[Stepped]) -> Vec<Row> {
    let size = steps.len().div_ceil(MOST_POINTS).max(1);
    let bytes = bytes_since_the_beginning(steps);
    let groups = steps.chunks(size).zip(bytes.chunks(size));
    groups.filter_map(|(steps, bytes)| row(steps, *bytes.last()?)).collect()
}

fn row(steps: &[Stepped], (up, down): (u64, u64)) -> Option<Row> {
    let last = steps.last()?;
    let mean =
        |value: fn(&Stepped) -> f64| steps.iter().map(value).sum::<f64>() / steps.len() as f64;
    let mean_of_some = |value: fn(&Stepped) -> Option<f64>| {
        let known: Vec<f64> = steps.iter().filter_map(value).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    Some(Row {
        step: last.step,
        epoch: last.epoch,
        loss: mean(|s| s.loss.into()),
        score: Score {
            accuracy: mean_of_some(|s| s.score.accuracy),
            perplexity: mean_of_some(|s| s.score.perplexity),
            rmse: mean_of_some(|s| s.score.rmse),
            r2: mean_of_some(|s| s.score.r2),
        },
        head_ms: mean(|s| s.head_ms),
        link_ms: mean(|s| s.link_ms),
        tail_ms: mean(|s| s.tail_ms),
        step_ms: mean(|s| s.step_ms),
        overlap: mean_of_some(|s| s.overlap),
        gradient_norm: mean_of_some(|s| s.gradient_norm),
        learning_rate: last.learning_rate,
        uplink: up as f64 / MIB,
        downlink: down as f64 / MIB,
    })
}

/// Bytes up and down over all processes of the run: the counters of each begin at 0.
fn bytes_since_the_beginning(steps: &[Stepped]) -> Vec<(u64, u64)> {
    let (mut before, mut last) = ((0, 0), (0, 0));
    let total = |step: &Stepped| {
        if step.uplink_bytes < last.0 || step.downlink_bytes < last.1 {
            before = (before.0 + last.0, before.1 + last.1);
        }
        last = (step.uplink_bytes, step.downlink_bytes);
        (before.0 + last.0, before.1 + last.1)
    };
    steps.iter().map(total).collect()
}

/// Bytes up and down of the whole run.
pub fn total_bytes(steps: &[Stepped]) -> (u64, u64) {
    bytes_since_the_beginning(steps).last().copied().unwrap_or_default()
}

/// A measure of how good the model is: what it is called, its scale, and where it stands.
struct Measure {
    id: &'static str,
    title: &'static str,
    scale: Scale,
    /// From the value to what is shown.
    factor: f64,
    of: fn(&Score) -> Option<f64>,
}

const MEASURES: [Measure; 4] = [
    Measure {
        id: "accuracy",
        title: "Accuracy",
        scale: Scale::ClosePercent,
        factor: 100.0,
        of: |s| s.accuracy,
    },
    Measure {
        id: "perplexity",
        title: "Perplexity",
        scale: Scale::Close,
        factor: 1.0,
        of: |s| s.perplexity,
    },
    Measure {
        id: "rmse",
        title: "Root mean squared error",
        scale: Scale::FromZero(""),
        factor: 1.0,
        of: |s| s.rmse,
    },
    Measure {
        id: "r2",
        title: "R², share of variance explained",
        scale: Scale::Close,
        factor: 1.0,
        of: |s| s.r2,
    },
];

/// One chart for each thing that the run has figures of.
pub fn charts(rows: &[Row], validated: &[Validated]) -> Vec<Chart> {
    let over = |name, colour, value: &dyn Fn(&Row) -> Option<f64>| {
        Series::line(name, colour, rows.iter().map(|r| (r.step, value(r))).collect())
    };
    let after_epochs = |value: &dyn Fn(&Validated) -> Option<f64>| {
        let points = validated.iter().map(|v| (v.step, value(v))).collect();
        Series::marked("validation", "validation", points)
    };
    let none = Scale::FromZero("");
    let loss =
        vec![over("training", "training", &|r| Some(r.loss)), after_epochs(&|v| Some(v.loss))];
    let mut charts = vec![Chart::new("loss", "Loss", none, loss)];
    for Measure { id, title, scale, factor, of } in MEASURES {
        let series = vec![
            over("training", "training", &|r| of(&r.score).map(|v| v * factor)),
            after_epochs(&|v| of(&v.score).map(|v| v * factor)),
        ];
        charts.push(Chart::new(id, title, scale, series));
    }
    let speed = over("steps a second", "training", &|r| Some(1e3 / r.step_ms));
    charts.push(Chart::new("speed", "Speed", Scale::FromZero("steps/s"), vec![speed]));
    let parts = vec![
        over("whole step", "whole", &|r| Some(r.step_ms)),
        over("head", "edge", &|r| Some(r.head_ms)),
        over("link", "uplink", &|r| Some(r.link_ms)),
        over("tail", "cloud", &|r| Some(r.tail_ms)),
    ];
    charts.push(Chart::new("time", "Time of a step", Scale::FromZero("ms"), parts));
    let bytes = vec![
        over("up", "uplink", &|r| Some(r.uplink)),
        over("down", "downlink", &|r| Some(r.downlink)),
    ];
    charts.push(Chart::new("bytes", "Sent since the run began", Scale::FromZero("MiB"), bytes));
    // 0 is a run from before its rate was written.
    let rate = |r: &Row| (r.learning_rate > 0.0).then_some(r.learning_rate);
    let rate = over("learning rate", "training", &rate);
    charts.push(Chart::new("rate", "Learning rate", none, vec![rate]));
    let overlap = over("overlap", "training", &|r| r.overlap.map(|o| o * 100.0));
    charts.push(Chart::new("overlap", "Overlap", Scale::Percent, vec![overlap]));
    let norm = over("gradient norm", "training", &|r| r.gradient_norm);
    charts.push(Chart::new("norm", "Gradient norm", none, vec![norm]));
    charts.retain(Chart::has_points);
    charts
}

/// A table of values, as texts.
#[derive(Debug, Serialize)]
pub struct Table {
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

/// The points of the curves.
pub fn values(rows: &[Row]) -> Table {
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or(String::new(), |v| format!("{v:.digits$}"))
    };
    let row = |r: &Row| {
        vec![
            r.step.to_string(),
            r.epoch.to_string(),
            format!("{:.6}", r.loss),
            r.score.to_string(),
            format!("{:.2}", 1e3 / r.step_ms),
            format!("{:.3}", r.head_ms),
            format!("{:.3}", r.link_ms),
            format!("{:.3}", r.tail_ms),
            format!("{:.3}", r.uplink),
            format!("{:.3}", r.downlink),
            short(r.learning_rate),
            cell(r.overlap.map(|o| o * 100.0), 1),
            cell(r.gradient_norm, 4),
        ]
    };
    let columns = vec![
        "step",
        "epoch",
        "loss",
        "score",
        "steps/s",
        "head, ms",
        "link, ms",
        "tail, ms",
        "up, MiB",
        "down, MiB",
        "learning rate",
        "overlap, %",
        "gradient norm",
    ];
    Table { columns, rows: rows.iter().map(row).collect() }
}

pub fn validations(validated: &[Validated]) -> Table {
    let row = |v: &Validated| {
        vec![v.epoch.to_string(), v.step.to_string(), format!("{:.6}", v.loss), v.score.to_string()]
    };
    Table {
        columns: vec!["epoch", "step", "loss", "score"],
        rows: validated.iter().map(row).collect(),
    }
}
