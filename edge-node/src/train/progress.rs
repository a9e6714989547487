//! What the user sees of a run: a bar on a terminal, a line an epoch in a log.

use std::time::{Duration, Instant};

use cleave_shared::link::LinkCounters;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::{Score, Validated};

/// Weight of the newest step in the shown loss and accuracy: about the last ten steps.
const SMOOTHING: f64 = 0.1;

pub struct Progress {
    bar: ProgressBar,
    begin: Instant,
    first: u64,
    smooth: Option<(f64, f64)>,
    quiet: bool,
}

impl Progress {
    /// `quiet`: nothing is shown, for a run beside others.
    pub fn new(run: &str, first: u64, total: u64, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let bar = bar.with_position(first);
        let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg} eta {eta}");
        bar.set_style(style.expect("the template is valid"));
        bar.set_prefix(run.to_string());
        Self { bar, begin: Instant::now(), first, smooth: None, quiet }
    }

    pub fn step(&mut self, step: u64, loss: f32, score: Score, bytes: LinkCounters) {
        let accuracy = score.accuracy.unwrap_or(0.0);
        let (loss, accuracy) = match self.smooth {
            Some((l, a)) => (mix(l, f64::from(loss)), mix(a, accuracy)),
            None => (f64::from(loss), accuracy),
        };
        self.smooth = Some((loss, accuracy));
        self.bar.set_position(step);
        let rate = self.rate(step);
        let accuracy =
            score.accuracy.map_or(String::new(), |_| format!("acc {:.1} % ", accuracy * 100.0));
        self.bar.set_message(format!(
            "loss {loss:.4} {accuracy}{rate:.1} steps/s up {} down {}",
            HumanBytes(bytes.uplink.accepted_bytes),
            HumanBytes(bytes.downlink.delivered_bytes),
        ));
    }

    fn rate(&self, step: u64) -> f64 {
        let seconds = self.begin.elapsed().as_secs_f64().max(1e-9);
        step.saturating_sub(self.first) as f64 / seconds
    }

    /// A validation result; the line stays above the bar.
    pub fn epoch(&self, epochs: u64, validated: &Validated) {
        let Validated { step, epoch, loss, score } = validated;
        let train = self.smooth.map_or(String::new(), |(l, _)| format!("train loss {l:.4}, "));
        let rate = self.rate(*step);
        self.say(&format!(
            "epoch {epoch}/{epochs}: {train}validation loss {loss:.4}, {score}, {rate:.1} steps/s"
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

fn mix(old: f64, new: f64) -> f64 {
    old + SMOOTHING * (new - old)
}
