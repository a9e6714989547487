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
        let (id, fresh) = self.seen.begun(split, uplink_bytes);
        let output_bytes = call.output_bytes as u64;
        let watched = Watched { id, seen: self.seen.clone(), outcome: None };
        let answered = move |InferAnswer { reply, uplink_ms, downlink_ms }: &InferAnswer| Call {
            split,
            uplink_bytes,
            fresh,
            uplink_ms: *uplink_ms,
            downlink_bytes: reply.output.iter().map(|t| t.data.len() as u64).sum(),
            downlink_ms: *downlink_ms,
            output_bytes,
            tail_ms: reply.tail_ms,
            queue_ms: reply.queue_ms,
        };
        let answer = self.inner.call(call);
        Box::pin(async move {
            let answer = answer.await;
            watched.ended(answer.as_ref().map_or(Event::Failed, |a| Event::Answered(answered(a))));
            answer
        })
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
