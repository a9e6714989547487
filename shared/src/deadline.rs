//! By when a request has to be answered. It begins at the edge, where the request arrives, and each node knows what is
//! left of it: over gRPC in `grpc-timeout`, which is relative, since two machines have two clocks
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

const HEADER: &str = "grpc-timeout";
/// Digits that the protocol has room for.
const MOST_DIGITS: usize = 8;

/// A moment of this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now. Longer than the clock can tell is the longest that it can.
    pub fn after(time: Duration) -> Self {
        const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);
        Self(Instant::now() + time.min(LONGEST))
    }

    /// What a call's caller has said, as of now; none if it waits forever or says it wrongly.
    pub fn of(call: &MetadataMap) -> Option<Self> {
        call.get(HEADER)?.to_str().ok().and_then(parse).map(Self::after)
    }

    /// Time until then; zero after it.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub fn instant(self) -> Instant {
        self.0
    }
}

/// Such as `250m`, which is 250 ms.
fn parse(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = &text[..unit_at];
    if digits.len() > MOST_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_says_how_long_it_waits() {
        for (text, ms) in
            [("2S", 2000), ("250m", 250), ("250000u", 250), ("1M", 60_000), ("1H", 3_600_000)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "-1S", "+1S", "1s", "1.5S", "123456789S", "1µ"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_a_client_sets_a_server_reads() {
        let mut request = tonic::Request::new(());
        assert_eq!(Deadline::of(request.metadata()), None);
        request.set_timeout(Duration::from_secs(40));
        let left = Deadline::of(request.metadata()).expect("it was set").left();
        assert!(left > Duration::from_secs(30) && left <= Duration::from_secs(40), "{left:?}");
        request.metadata_mut().insert(HEADER, "99999999H".parse().unwrap());
        assert!(Deadline::of(request.metadata()).expect("a long one").left() > left);
    }
}
