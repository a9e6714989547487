//! The trials of a search as a table, best first.

use std::fmt::Write;

use super::{
    Tuned,
    journal::{Ended, State},
};

/// The whole table, and how to go on with the best.
pub fn render(tuned: &Tuned) -> String {
    let mut text = format!(
        "\n  {:>5} {:>13} {:>6} {:>6} {:>6} {:>8} {:>7}  result\n",
        "trial", "learning rate", "batch", "codec", "split", "state", "epochs"
    );
    for ended in &tuned.ended {
        let mark = if ended.best { '*' } else { ' ' };
        let _ = writeln!(text, "{mark} {}", row(ended));
    }
    if let Some(best) = tuned.ended.iter().find(|e| e.best) {
        let run = &best.run;
        let _ = writeln!(text, "\n* the best: edge-node serve --run {run}");
    }
    text
}

/// A trial that ended, in one line.
pub fn line(ended: &Ended) -> String {
    format!("{}: {} ({:.1} s)", ended.run, row(ended).trim_start(), ended.seconds)
}

fn row(ended: &Ended) -> String {
    let trial = &ended.trial;
    let state = match ended.state {
        State::Done => "done",
        State::Stopped => "stopped",
        State::Failed => "failed",
    };
    let result = match (&ended.error, &ended.validation) {
        (Some(error), _) => error.clone(),
        (None, Some(validated)) => format!("{}, loss {:.4}", validated.score, validated.loss),
        (None, None) => "no validation".into(),
    };
    format!(
        "{:>5} {:>13.6} {:>6} {:>6} {:>6} {state:>8} {:>7}  {result}",
        trial.trial,
        trial.learning_rate,
        trial.batch_size,
        trial.codec,
        trial.split_point,
        ended.curve.len(),
    )
}
