//! How many micro-batches a step is best cut into: by trying.
//!
//! More of them hide more of the transfer behind the computation, but each pays for its messages, its TDD
//! slots and the smaller matrices. A step that is only prepared changes nothing, so the first step is
//! prepared with each number a few times, over the real link, and the quickest is kept for the run.

use std::{
    fmt,
    time::{Duration, Instant},
};

use cleave_shared::data::Feed;

use super::{ConversationError, Tally, micro_batch::cut, pipeline::Pipeline};

/// Numbers that are tried, as far as the batch has that many samples.
const CANDIDATES: [u32; 6] = [1, 2, 4, 8, 16, 32];
/// Tries of each; the first of all, when nothing is warm, is not counted.
const TRIES: usize = 3;

/// What each number of micro-batches took.
pub struct Measured {
    /// Number, and the median of its tries.
    times: Vec<(u32, Duration)>,
}

impl Measured {
    /// The quickest.
    pub fn best(&self) -> u32 {
        self.times.iter().min_by_key(|(_, time)| *time).map_or(1, |(count, _)| *count)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a step takes")?;
        for (i, (count, time)) in self.times.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} {:.1} ms in {count}", time.as_secs_f64() * 1e3)?;
        }
        write!(f, ": {} micro-batches from now on", self.best())
    }
}

/// Prepares step `id`, whose samples are at `indices`, with each number of micro-batches.
pub async fn measure(
    pipeline: &mut Pipeline<'_>,
    id: u64,
    feed: &Feed,
    indices: &[usize],
    tally: &mut Tally,
) -> Result<Measured, ConversationError> {
    let candidates = CANDIDATES.into_iter().filter(|&n| n as usize <= indices.len().max(1));
    let mut times: Vec<(u32, Vec<Duration>)> = candidates.map(|n| (n, Vec::new())).collect();
    for round in 0..=TRIES {
        for (count, tries) in &mut times {
            let micro_batches = cut(feed, indices, *count).map_err(ConversationError::Local)?;
            let begin = Instant::now();
            pipeline.prepare(id, &micro_batches, tally).await?;
            if round > 0 {
                tries.push(begin.elapsed());
            }
        }
    }
    let median = |mut tries: Vec<Duration>| {
        tries.sort();
        tries[tries.len() / 2]
    };
    let times = times.into_iter().map(|(count, tries)| (count, median(tries))).collect();
    Ok(Measured { times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_is_kept() {
        let ms = Duration::from_millis;
        let measured = Measured { times: vec![(1, ms(90)), (4, ms(50)), (8, ms(60))] };
        assert_eq!(measured.best(), 4);
        let text =
            "a step takes 90.0 ms in 1, 50.0 ms in 4, 60.0 ms in 8: 4 micro-batches from now on";
        assert_eq!(measured.to_string(), text);
    }
}
