//! Numbers on the frames of a stream, so that none counts twice, whatever lies in between.
//!
//! gRPC delivers the frames of a stream in order and once. A proxy that retries, or a fault that is injected,
//! need not: a frame that was seen is dropped, and one that is missing ends the stream, after which both
//! sides open another and go on from the newest state that they share.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio_stream::Stream;
use tonic::Status;

use super::v1;

/// A message with a number.
pub trait Frame {
    fn number(&mut self) -> &mut u64;
}

impl Frame for v1::TrainRequest {
    fn number(&mut self) -> &mut u64 {
        &mut self.number
    }
}

impl Frame for v1::TrainReply {
    fn number(&mut self) -> &mut u64 {
        &mut self.number
    }
}

/// Incoming frames, each once and in order.
pub struct Frames<S> {
    inner: S,
    sequence: Sequence,
}

impl<S> Frames<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, sequence: Sequence::default() }
    }
}

impl<F: Frame, S: Stream<Item = Result<F, Status>> + Unpin> Stream for Frames<S> {
    type Item = Result<F, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(mut frame) = ready!(Pin::new(&mut self.inner).poll_next(cx)?) else {
                return Poll::Ready(None);
            };
            match self.sequence.arrived(*frame.number()) {
                Ok(Arrival::Next) => return Poll::Ready(Some(Ok(frame))),
                Ok(Arrival::Seen) => {}
                Err(gap) => return Poll::Ready(Some(Err(Status::aborted(gap.to_string())))),
            }
        }
    }
}

/// Numbers outgoing frames, or checks incoming ones; from 1.
#[derive(Debug, Default)]
pub struct Sequence {
    last: u64,
}

/// What to do with an incoming frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Next,
    /// It came before: drop it.
    Seen,
}

/// Frames are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame {found} came where {expected} was expected; open the run again")]
struct Gap {
    expected: u64,
    found: u64,
}

impl Sequence {
    /// The number of the next outgoing frame.
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Numbers the next outgoing frame.
    pub fn stamp<F: Frame>(&mut self, mut frame: F) -> F {
        *frame.number() = self.next();
        frame
    }

    /// Checks the number of an incoming frame.
    fn arrived(&mut self, number: u64) -> Result<Arrival, Gap> {
        let expected = self.last + 1;
        if number == expected {
            self.last = number;
            return Ok(Arrival::Next);
        }
        match number < expected {
            true => Ok(Arrival::Seen),
            false => Err(Gap { expected, found: number }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Frames that are doubled and delayed at will are taken as 1, 2, 3, ... or not at all.
        #[test]
        fn taken_frames_are_in_order_and_once(sent in prop::collection::vec(1u64..12, 0..60)) {
            let mut sequence = Sequence::default();
            let mut taken = Vec::new();
            for number in sent {
                match sequence.arrived(number) {
                    Ok(Arrival::Next) => taken.push(number),
                    Ok(Arrival::Seen) => prop_assert!(taken.contains(&number)),
                    Err(gap) => {
                        prop_assert!(!taken.contains(&number) && gap.expected == taken.len() as u64 + 1);
                    }
                }
            }
            prop_assert_eq!(&taken, &(1..=taken.len() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_senders_numbers_are_what_a_receiver_expects() {
        let (mut sender, mut receiver) = (Sequence::default(), Sequence::default());
        for _ in 0..3 {
            assert_eq!(receiver.arrived(sender.next()), Ok(Arrival::Next));
        }
        sender.next();
        assert_eq!(receiver.arrived(sender.next()), Err(Gap { expected: 4, found: 5 }));
    }
}
