//! A measurement as a table and as JSON.

use std::fmt::Write;

use cleave_shared::data::Part;
use serde::Serialize;

use super::confusion::{ClassScore, Confusion};
use crate::train::Score;

/// Above this many classes the matrix does not fit a terminal.
const WIDEST: usize = 20;

/// What a run came to on a part of its data.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub run: String,
    pub step: u64,
    pub part: Part,
    pub samples: usize,
    /// Mean cross-entropy, or mean squared error of a regression.
    pub loss: f64,
    #[serde(flatten)]
    pub score: Score,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<ClassScore>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
}

impl Report {
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }

    pub fn render(&self) -> String {
        let Self { run, step, samples, loss, score, .. } = self;
        let part = self.part.name();
        let mut text = format!("{run} after {step} steps, {samples} samples for {part}: ");
        let _ = writeln!(text, "loss {loss:.4}, {score}");
        if let Some(classes) = &self.classes {
            text += &class_table(classes);
        }
        if let Some(confusion) = self.confusion.as_ref().filter(|c| c.names.len() <= WIDEST) {
            text += &matrix(confusion);
        }
        text
    }
}

fn class_table(classes: &[ClassScore]) -> String {
    let widest = classes.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!(
        "\n  {:<widest$} {:>9} {:>9} {:>9} {:>9}\n",
        "class", "precision", "recall", "F1", "samples"
    );
    for ClassScore { name, support, precision, recall, f1 } in classes {
        let _ = writeln!(
            text,
            "  {name:<widest$} {precision:>9.4} {recall:>9.4} {f1:>9.4} {support:>9}"
        );
    }
    text
}

fn matrix(confusion: &Confusion) -> String {
    let longest = confusion.names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let cell = longest.clamp(5, 12);
    let mut text = format!("\n  {:>cell$}", "is\\as");
    let cut = |name: &String| name.chars().take(cell).collect::<String>();
    let cells =
        |cells: Vec<String>| cells.iter().map(|c| format!(" {c:>cell$}")).collect::<String>();
    text += &cells(confusion.names.iter().map(cut).collect());
    text.push('\n');
    for (name, row) in confusion.names.iter().zip(&confusion.counts) {
        let counts = cells(row.iter().map(u64::to_string).collect());
        let _ = writeln!(text, "  {:>cell$}{counts}", cut(name));
    }
    text
}
