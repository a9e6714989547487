//! Callers that ask again as soon as they are answered, and what they saw.
//!
//! Each has one request under way, so that the queue of whoever answers is never longer than there
//! are callers, and what is counted is the most that it can do.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// Longer than any answer takes: without it a peer that hangs would be measured for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a failure, so that a peer that refuses is not kept busy with refusing.
const PAUSE: Duration = Duration::from_millis(10);
/// Seconds that may be asked for.
const ALLOWED_S: std::ops::RangeInclusive<f64> = 0.001..=86_400.0;

/// One that asks.
pub trait Caller: Send + 'static {
    /// Sends a request and waits until its answer is here and right. An error is a few words that
    /// failures are counted by, such as the name of a status.
    fn ask(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// How long is measured.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Span {
    /// Seconds whose answers count
    #[arg(long, value_name = "S", default_value = "6", value_parser = seconds)]
    seconds: Duration,
    /// Seconds before them, until buffers have their size and the queue its length
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    warm_up: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if ALLOWED_S.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("allowed: {} to {}", ALLOWED_S.start(), ALLOWED_S.end())),
    }
}

/// What all callers saw.
#[derive(Debug, Serialize)]
pub struct Summary {
    requests_per_s: f64,
    /// None without an answer.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    answers: usize,
    /// How often each kind of failure was seen, the warm-up included.
    errors: BTreeMap<String, usize>,
}

/// What one caller saw.
#[derive(Debug, Default)]
struct Seen {
    latencies_ms: Vec<f64>,
    errors: BTreeMap<String, usize>,
}

/// Lets all callers ask until the time is over.
pub async fn run(callers: Vec<impl Caller>, span: Span) -> Summary {
    let begin = Instant::now() + span.warm_up;
    let end = begin + span.seconds;
    let tasks: JoinSet<Seen> =
        callers.into_iter().map(|caller| keep_asking(caller, begin, end)).collect();
    Summary::of(tasks.join_all().await, span.seconds)
}

async fn keep_asking(mut caller: impl Caller, begin: Instant, end: Instant) -> Seen {
    let mut seen = Seen::default();
    loop {
        let asked = Instant::now();
        if asked >= end {
            return seen;
        }
        let answer = timeout(PATIENCE, caller.ask()).await;
        let answered = Instant::now();
        match answer.unwrap_or_else(|_| Err("no answer".into())) {
            // Whenever it was asked for: what was under way at the beginning makes up for what is
            // at the end.
            Ok(()) if (begin..end).contains(&answered) => {
                seen.latencies_ms.push((answered - asked).as_secs_f64() * 1e3);
            }
            Ok(()) => {}
            Err(kind) => {
                *seen.errors.entry(kind).or_default() += 1;
                sleep(PAUSE).await;
            }
        }
    }
}

impl Summary {
    fn of(all: Vec<Seen>, time: Duration) -> Self {
        let mut errors = BTreeMap::<String, usize>::new();
        let mut latencies_ms = Vec::<f64>::new();
        for seen in all {
            latencies_ms.extend(seen.latencies_ms);
            for (kind, count) in seen.errors {
                *errors.entry(kind).or_default() += count;
            }
        }
        latencies_ms.sort_by(f64::total_cmp);
        let answers = latencies_ms.len();
        Self {
            requests_per_s: answers as f64 / time.as_secs_f64(),
            p50_ms: quantile(&latencies_ms, 0.5),
            p99_ms: quantile(&latencies_ms, 0.99),
            answers,
            errors,
        }
    }

    /// One line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }
}

/// The least value that so large a share of all does not exceed.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let count = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(count.saturating_sub(1)).copied()
}
