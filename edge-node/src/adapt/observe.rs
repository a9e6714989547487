//! The layer around calls to the cloud that tells [`Seen`] what they took.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{Call, Event, Seen};
use crate::cloud::{InferAnswer, InferCall};

/// Makes [`Observe`] services.
#[derive(Clone)]
pub struct ObserveLayer {
    seen: Arc<Seen>,
}

impl ObserveLayer {
    pub fn new(seen: Arc<Seen>) -> Self {
        Self { seen }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, seen: self.seen.clone() }
    }
}

/// Passes calls on, and notes them.
#[derive(Clone)]
pub struct Observe<S> {
    inner: S,
    seen: Arc<Seen>,
}

impl<S> Service<InferCall> for Observe<S>
where
    S: Service<InferCall, Response = InferAnswer>,
    S::Future: Send + 'static,
{
    type Response = InferAnswer;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<InferAnswer, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: InferCall) -> Self::Future {
        let split = call.agreement.split_point as usize;
        let uplink_bytes: u64 = call.activation.iter().map(|t| t.data.len() as u64).sum();
        let (seen, output_bytes) = (self.seen.clone(), call.output_bytes as u64);
        let (id, fresh) = seen.begun(split, uplink_bytes);
        let watched = Watched { id, seen, outcome: None };
        let answer = self.inner.call(call);
        Box::pin(async move {
            let answer = answer.await;
            watched.ended(match &answer {
                Ok(answer) => Event::Answered(Call {
                    uplink_bytes,
                    fresh,
                    output_bytes,
                    ..seen_of(split, answer)
                }),
                Err(_) => Event::Failed,
            });
            answer
        })
    }
}

/// As far as the answer tells.
fn seen_of(split: usize, answer: &InferAnswer) -> Call {
    let InferAnswer { reply, uplink_ms, downlink_ms } = answer;
    Call {
        split,
        uplink_bytes: 0,
        fresh: false,
        output_bytes: 0,
        uplink_ms: *uplink_ms,
        downlink_bytes: reply.output.iter().map(|t| t.data.len() as u64).sum(),
        downlink_ms: *downlink_ms,
        tail_ms: reply.tail_ms,
        queue_ms: reply.queue_ms,
    }
}

/// Ends the call's entry also when its caller has gone away.
struct Watched {
    id: u64,
    seen: Arc<Seen>,
    outcome: Option<Event>,
}

impl Watched {
    fn ended(mut self, outcome: Event) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.seen.ended(self.id, self.outcome.take());
    }
}
