//! Round trips, one after the other, each timed from what is sent in memory to the whole answer in
//! memory.

use std::time::Instant;

use bytes::Bytes;

/// One way to the far end and back.
pub trait RoundTrip {
    /// Bytes of the message that asks, as it is sent.
    fn request_bytes(&self) -> usize;

    /// Sends it, and keeps the answer once all of it is here.
    fn trip(&mut self) -> impl Future<Output = Result<(), String>> + Send;

    /// Refuses an answer of another length; as a `whole`, also one with other bytes. Lets go of it.
    fn check(&mut self, whole: bool) -> Result<(), String>;
}

/// The time of each of `count` round trips, µs. Between them answers are checked, the first of all
/// byte for byte, and freed.
pub async fn time(
    mut way: impl RoundTrip,
    warm_up: usize,
    count: usize,
) -> Result<Vec<f64>, String> {
    let mut us = Vec::with_capacity(count);
    for number in 0..warm_up + count {
        let begin = Instant::now();
        way.trip().await?;
        let took = begin.elapsed();
        way.check(number == 0)?;
        if number >= warm_up {
            us.push(took.as_secs_f64() * 1e6);
        }
    }
    Ok(us)
}

/// Bytes that are not all alike, so that one which is lost or out of place is noticed.
pub fn content(bytes: usize) -> Bytes {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

/// See [`RoundTrip::check`].
pub fn compare(answer: &[u8], expected: &[u8], whole: bool) -> Result<(), String> {
    if answer.len() != expected.len() {
        return Err(format!("{} bytes came back, not {}", answer.len(), expected.len()));
    }
    match whole && answer != expected {
        true => Err("other bytes came back than were sent".into()),
        false => Ok(()),
    }
}
