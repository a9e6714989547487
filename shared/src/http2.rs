//! HTTP/2 as edge and cloud have it between them.

use std::{ops::RangeInclusive, time::Duration};

use http::Uri;
use tonic::transport::{Endpoint, Server};

use crate::{link::profile::Direction, wire::CHUNK_BYTES};

/// One message: a chunk of tensor data, and room for the fields around it.
pub const MAX_MESSAGE_BYTES: usize = CHUNK_BYTES + (1 << 20);
/// A peer that vanished without a word is noticed after at most the sum of these.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at once on one connection, streams among them; more wait at the other end.
pub const MOST_STREAMS: u32 = 256;

/// Windows: more than twice what the fastest profile has in flight (1.5 Gbit/s × 12 ms = 2.25 MB), so that flow control
/// never empties the link. h2's default of 64 KiB would.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long one DATA frame may take on the link. It is not interrupted: so long a small request waits behind a large one.
const FRAME_TIME: Duration = Duration::from_millis(2);
/// Bounds of a frame, bytes: what every peer takes, and one chunk. Each frame is a system call at either end.
const FRAMES: RangeInclusive<u64> = 16 << 10..=1 << 20;

/// A cloud's server, without its layers, at the end of such an uplink.
pub fn server(uplink: &Direction) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(frame(uplink))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MOST_STREAMS)
}

/// An edge's end of a connection to a cloud, with such a downlink.
pub fn endpoint(cloud: Uri, downlink: &Direction) -> Endpoint {
    Endpoint::from(cloud)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(frame(downlink))
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
}

/// Longest frame to ask for, bytes.
fn frame(incoming: &Direction) -> u32 {
    let bytes = match incoming.rate_bps {
        0 => *FRAMES.end(),
        rate => (rate as f64 / 8.0 * FRAME_TIME.as_secs_f64()) as u64,
    };
    bytes.clamp(*FRAMES.start(), *FRAMES.end()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Profile;

    #[test]
    fn a_frame_takes_two_milliseconds_at_most_where_a_rate_is_known() {
        let downlink = |rate_bps| {
            let downlink = Profile::builtin("none").unwrap().downlink;
            frame(&Direction { rate_bps, ..downlink })
        };
        assert_eq!(downlink(0), 1 << 20);
        assert_eq!(downlink(100_000_000), 25_000);
        assert_eq!(downlink(1_000_000_000), 250_000);
        assert_eq!([downlink(1), downlink(u64::MAX)], [16 << 10, 1 << 20]);
    }
}
