//! How long a lost cloud is tried again, and how often.

use std::time::{Duration, Instant};

/// Pauses between attempts: doubled each time, within these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is left of `train.reconnect_timeout_s`.
pub struct Patience {
    most: Duration,
    lost_since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    pub fn new(most_s: u64) -> Self {
        Self { most: Duration::from_secs(most_s), lost_since: None, pause: SHORTEST_PAUSE }
    }

    /// The cloud was there meanwhile: what is lost now is lost anew.
    pub fn renew(&mut self) {
        (self.lost_since, self.pause) = (None, SHORTEST_PAUSE);
    }

    /// Whether the cloud has been lost for as long as that may be; it is lost at the latest now.
    pub fn is_over(&mut self) -> bool {
        self.lost_since.get_or_insert_with(Instant::now).elapsed() >= self.most
    }

    /// Until the next attempt.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
