//! What the user sees of a run: a bar on a terminal, a line an epoch in a log.

use std::{
    fmt,
    time::{Duration, Instant},
};

use indicatif::{FormattedDuration, HumanBytes, ProgressBar, ProgressStyle};

use super::{Stepped, Validated};

/// Weight of the newest step in what is shown of losses and speeds: about the last ten steps.
const SMOOTHING: f64 = 0.1;

pub struct Progress {
    bar: ProgressBar,
    begin: Instant,
    first: u64,
    total: u64,
    shown: Option<Shown>,
    quiet: bool,
}

/// The last step, with its noisy figures smoothed.
#[derive(Debug, Clone, Copy)]
struct Shown {
    last: Stepped,
    loss: f64,
    accuracy: Option<f64>,
    overlap: Option<f64>,
}

impl Shown {
    fn new(step: &Stepped) -> Self {
        let Stepped { loss, score, overlap, .. } = *step;
        Self { last: *step, loss: loss.into(), accuracy: score.accuracy, overlap }
    }

    fn then(self, step: &Stepped) -> Self {
        let new = Self::new(step);
        Self {
            last: new.last,
            loss: mix(Some(self.loss), new.loss),
            accuracy: new.accuracy.map(|a| mix(self.accuracy, a)),
            overlap: new.overlap.map(|o| mix(self.overlap, o)),
        }
    }
}

fn mix(old: Option<f64>, new: f64) -> f64 {
    // After a loss that was no number the next one counts alone.
    old.filter(|old| old.is_finite()).map_or(new, |old| old + SMOOTHING * (new - old))
}

/// How fast the run is, what it costs, and how long it will take.
struct Pace {
    learning_rate: f64,
    steps_per_s: f64,
    overlap: Option<f64>,
    uplink_bytes: u64,
    downlink_bytes: u64,
    left: Option<Duration>,
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits of a rate that a schedule changes with every step.
        let rate = format!("{:.2e}", self.learning_rate).parse().unwrap_or(self.learning_rate);
        write!(f, "lr {rate}, {:.1} steps/s", self.steps_per_s)?;
        if let Some(overlap) = self.overlap {
            write!(f, ", overlap {:.0} %", overlap * 100.0)?;
        }
        let [up, down] = [self.uplink_bytes, self.downlink_bytes].map(HumanBytes);
        write!(f, ", {up} up, {down} down")?;
        match self.left {
            Some(left) if !left.is_zero() => write!(f, ", eta {}", FormattedDuration(left)),
            _ => Ok(()),
        }
    }
}

impl Progress {
    /// `quiet`: nothing is shown, for a run beside others.
    pub fn new(run: &str, first: u64, total: u64, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let bar = bar.with_position(first);
        let style = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len} {wide_msg}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(run.to_string());
        Self { bar, begin: Instant::now(), first, total, shown: None, quiet }
    }

    pub fn step(&mut self, step: &Stepped) {
        let shown = self.shown.map_or_else(|| Shown::new(step), |shown| shown.then(step));
        self.shown = Some(shown);
        self.bar.set_position(step.step);
        let accuracy =
            shown.accuracy.map_or(String::new(), |a| format!("accuracy {:.1} %, ", a * 100.0));
        let pace = self.pace(&shown, step.step);
        self.bar.set_message(format!("loss {:.4}, {accuracy}{pace}", shown.loss));
    }

    fn pace(&self, shown: &Shown, step: u64) -> Pace {
        let seconds = self.begin.elapsed().as_secs_f64().max(1e-9);
        let steps_per_s = step.saturating_sub(self.first) as f64 / seconds;
        let left = self.total.saturating_sub(step) as f64 / steps_per_s;
        Pace {
            learning_rate: shown.last.learning_rate,
            steps_per_s,
            overlap: shown.overlap,
            uplink_bytes: shown.last.uplink_bytes,
            downlink_bytes: shown.last.downlink_bytes,
            left: Duration::try_from_secs_f64(left.round()).ok(),
        }
    }

    /// A validation result; the line stays above the bar.
    pub fn epoch(&self, epochs: u64, validated: &Validated) {
        let Validated { step, epoch, loss, score } = validated;
        let (train, pace) = match &self.shown {
            Some(shown) => (
                format!("train loss {:.4}, ", shown.loss),
                format!(", {}", self.pace(shown, *step)),
            ),
            None => Default::default(),
        };
        self.say(&format!(
            "epoch {epoch}/{epochs}: {train}validation loss {loss:.4}, {score}{pace}"
        ));
    }

    /// Something happened; the line stays above the bar.
    pub fn say(&self, text: &str) {
        if self.quiet {
            tracing::debug!("{text}");
        } else if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// After going back: the speed counts from here.
    pub fn rewind(&mut self, step: u64) {
        self.begin = Instant::now();
        self.first = step;
        self.bar.set_position(step);
    }

    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.begin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Score;

    fn stepped(step: u64, loss: f32, overlap: f64) -> Stepped {
        Stepped {
            step,
            epoch: 1,
            loss,
            score: Score { accuracy: Some(0.5), ..Score::default() },
            head_ms: 1.0,
            link_ms: 1.0,
            tail_ms: 1.0,
            step_ms: 4.0,
            overlap: Some(overlap),
            micro_batches: 4,
            learning_rate: 0.001,
            gradient_norm: None,
            uplink_bytes: 3 << 20,
            downlink_bytes: 1 << 10,
        }
    }

    #[test]
    fn the_pace_says_all_that_is_known() {
        let shown = Shown::new(&stepped(1, 2.0, 0.6)).then(&stepped(2, 1.0, 0.7));
        assert!((shown.loss - 1.9).abs() < 1e-9, "{shown:?}");
        let after_nan = Shown::new(&stepped(1, f32::NAN, 0.6)).then(&stepped(2, 1.0, 0.6));
        assert_eq!(after_nan.loss, 1.0);
        let pace = Pace {
            learning_rate: 0.001234567,
            steps_per_s: 12.34,
            overlap: shown.overlap,
            uplink_bytes: shown.last.uplink_bytes,
            downlink_bytes: shown.last.downlink_bytes,
            left: Some(Duration::from_secs(90)),
        };
        assert_eq!(
            pace.to_string(),
            "lr 0.00123, 12.3 steps/s, overlap 61 %, 3.00 MiB up, 1.00 KiB down, eta 00:01:30"
        );
    }

    #[test]
    fn a_run_without_a_step_has_no_time_left_to_tell() {
        let progress = Progress::new("a", 5, 10, true);
        let pace = progress.pace(&Shown::new(&stepped(5, 1.0, 0.0)), 5);
        assert_eq!(pace.left, None);
    }
}
