//! What is sent has to come in time: who sends a byte now and then would hold a call, and what was read of it, for ever.
//!
//! A call of one message is read before it is answered, so a [`layer`] of the server looks at its body. A stream may be
//! silent for as long as its protocol allows; who answers it asks for each message [`in_time`].

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Request;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, body::Body};
use tower::{BoxError, util::MapRequestLayer};

/// How long a message of a call may take: 2 MB, which is the most, at 280 kbit/s.
const PATIENCE: Duration = Duration::from_secs(60);

/// The calls whose edges send more than one message.
const STREAMS: [&str; 5] = [
    "/cleave.v1.SplitService/InferChunked",
    "/cleave.v1.SplitService/Train",
    "/cleave.v1.SplitService/Generate",
    "/cleave.v1.SplitService/StoreWeights",
    "/cleave.v1.GroupService/Join",
];

/// Ends calls that are no streams of the split protocol if they are not complete in time.
pub fn layer() -> MapRequestLayer<impl Fn(Request<Body>) -> Request<Body> + Clone> {
    MapRequestLayer::new(complete_in_time)
}

fn complete_in_time(request: Request<Body>) -> Request<Body> {
    match STREAMS.contains(&request.uri().path()) {
        true => request,
        false => request.map(|body| Body::new(Timed::new(body, PATIENCE, || too_slow().into()))),
    }
}

/// The messages of a stream, or an error where one of them takes too long.
pub fn in_time<T>(
    messages: impl Stream<Item = Result<T, Status>>,
) -> Pin<Box<impl Stream<Item = Result<T, Status>>>> {
    let messages = messages.timeout(PATIENCE);
    Box::pin(messages.map(|message| message.unwrap_or_else(|_| Err(too_slow()))))
}

fn too_slow() -> Status {
    Status::deadline_exceeded(format!("a message took more than {} s", PATIENCE.as_secs()))
}

/// A body that has to come in time, all of it.
pub struct Timed<B> {
    body: B,
    over: Pin<Box<Sleep>>,
    late: fn() -> BoxError,
}

impl<B> Timed<B> {
    /// One that takes longer than `most` ends with what `late` says.
    pub fn new(body: B, most: Duration, late: fn() -> BoxError) -> Self {
        Self { body, over: Box::pin(sleep(most)), late }
    }
}

impl<B> http_body::Body for Timed<B>
where
    B: http_body::Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() && self.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err((self.late)())));
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{Instant, timeout};
    use tonic::Code;

    use super::*;

    /// A call that sends a byte a second and does not end.
    fn trickle(path: &str) -> Request<Body> {
        let bytes = futures_util::stream::unfold((), |()| async {
            sleep(Duration::from_secs(1)).await;
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")));
            Some((frame, ()))
        });
        Request::post(path).body(Body::new(StreamBody::new(bytes))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_a_second_is_not_enough() {
        let begin = Instant::now();
        let call = complete_in_time(trickle("/cleave.v1.SplitService/Infer"));
        let status = call.into_body().collect().await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        let took = begin.elapsed();
        assert!((PATIENCE..PATIENCE + Duration::from_secs(2)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_it_wants_to() {
        for path in STREAMS {
            let call = complete_in_time(trickle(path)).into_body();
            assert!(timeout(10 * PATIENCE, call.collect()).await.is_err(), "{path} was ended");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_of_a_stream_has_its_time() {
        let seconds = tokio_stream::iter([50, 50, 70]);
        let mut messages = in_time(seconds.then(|s| async move {
            sleep(Duration::from_secs(s)).await;
            Ok(s)
        }));
        let mut next = async || messages.next().await.unwrap().map_err(|status| status.code());
        assert_eq!([next().await, next().await], [Ok(50), Ok(50)]);
        assert_eq!(next().await, Err(Code::DeadlineExceeded));
    }

    #[test]
    fn the_streams_are_those_of_the_protocol() {
        let protocol = concat!(
            include_str!("../../proto/cleave/v1/split.proto"),
            include_str!("../../proto/cleave/v1/group.proto")
        );
        let calls = protocol.lines().filter_map(|l| l.trim().strip_prefix("rpc ")?.split_once('('));
        let streams = calls.filter(|(_, asked)| asked.starts_with("stream ")).map(|(name, _)| name);
        let known = STREAMS.iter().filter_map(|path| path.rsplit('/').next());
        assert!(known.eq(streams));
    }
}
