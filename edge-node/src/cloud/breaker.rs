//! While the cloud does not answer, calls fail at once, but for one now and then (Nygard, Release It!, 2007).

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tonic::{Code, Status};
use tower::{BoxError, Layer, Service, timeout::error::Elapsed};

/// So many calls that fail one after the other open the circuit.
const FAILURES: u32 = 3;
/// How long it stays open before a call is let through; others wait for what becomes of that one.
const OPEN: Duration = Duration::from_millis(200);

/// Makes [`Breaker`] services that share one circuit.
#[derive(Clone, Default)]
pub struct BreakerLayer {
    circuit: Arc<Mutex<Circuit>>,
}

#[derive(Default)]
struct Circuit {
    /// In a row.
    failures: u32,
    /// Why the last one failed.
    why: Option<Status>,
    /// When a call may pass again, while it is open.
    next: Option<Instant>,
    /// Whether one is on its way that tries.
    trying: bool,
}

impl Circuit {
    /// The error of calls that do not pass.
    fn refuses(&mut self) -> Option<Status> {
        let next = self.next?;
        if !self.trying && Instant::now() >= next {
            self.trying = true;
            return None;
        }
        self.why.clone()
    }

    fn ended(&mut self, failed: Option<Status>) {
        let Some(why) = failed else {
            if self.next.is_some() {
                tracing::info!("the cloud answers again");
            }
            *self = Self::default();
            return;
        };
        self.trying = false;
        self.failures += 1;
        if self.failures >= FAILURES {
            if self.next.is_none() {
                tracing::warn!("calls to the cloud fail at once for now: {}", why.message());
            }
            self.next = Some(Instant::now() + OPEN);
        }
        self.why = Some(why);
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker { inner, circuit: self.circuit.clone() }
    }
}

/// See [`BreakerLayer`].
#[derive(Clone)]
pub struct Breaker<S> {
    inner: S,
    circuit: Arc<Mutex<Circuit>>,
}

impl<S, Call> Service<Call> for Breaker<S>
where
    S: Service<Call, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        if let Some(why) = locked(&self.circuit).refuses() {
            return Box::pin(std::future::ready(Err(why.into())));
        }
        let (answer, attempt) = (self.inner.call(call), Attempt(self.circuit.clone()));
        Box::pin(async move {
            let answer = answer.await;
            locked(&attempt.0).ended(answer.as_ref().err().and_then(failure));
            answer
        })
    }
}

/// A call that passed. One that nobody waits for any more leaves its place to another.
struct Attempt(Arc<Mutex<Circuit>>);

impl Drop for Attempt {
    fn drop(&mut self) {
        locked(&self.0).trying = false;
    }
}

fn locked(circuit: &Mutex<Circuit>) -> MutexGuard<'_, Circuit> {
    circuit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What says that the cloud is not there. Whatever else it answers, it answers.
fn failure(error: &BoxError) -> Option<Status> {
    if error.is::<Elapsed>() {
        return Some(Status::unavailable("it did not answer in time"));
    }
    let status = error.downcast_ref::<Status>()?;
    let gone = [Code::Unavailable, Code::Unknown, Code::Cancelled, Code::DeadlineExceeded];
    gone.contains(&status.code()).then(|| status.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_is_gone_is_asked_now_and_then() {
        let (asked, up) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, alive) = (asked.clone(), up.clone());
        let cloud = service_fn(move |()| {
            counted.fetch_add(1, Ordering::Relaxed);
            let alive = alive.load(Ordering::Relaxed);
            async move {
                let gone = || BoxError::from(Status::unavailable("connection refused"));
                if alive { Ok(()) } else { Err(gone()) }
            }
        });
        let service = BreakerLayer::default().layer(cloud);
        let call = async || service.clone().oneshot(()).await;
        for _ in 0..10 {
            let error = call().await.unwrap_err();
            assert!(error.to_string().contains("connection refused"), "{error}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), FAILURES);
        tokio::time::advance(OPEN).await;
        assert!(call().await.is_err() && call().await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), FAILURES + 1);
        up.store(true, Ordering::Relaxed);
        tokio::time::advance(OPEN).await;
        for _ in 0..3 {
            assert!(call().await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_cloud_refuses_says_that_it_is_there() {
        let refusing = service_fn(|()| async {
            Err::<(), _>(BoxError::from(Status::invalid_argument("no such shape")))
        });
        let service = BreakerLayer::default().layer(refusing);
        for _ in 0..2 * FAILURES {
            let error = service.clone().oneshot(()).await.unwrap_err();
            assert!(error.to_string().contains("no such shape"), "{error}");
        }
    }
}
