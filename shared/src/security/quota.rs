//! What one edge may take of a cloud that serves many.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::who;

/// Edges that are remembered though they ask for nothing.
const REMEMBERED: usize = 1024;
/// What a client is told to wait (gRPC's retry design, A6), ms.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// The same where nobody knows when there will be room.
const LATER: Duration = Duration::from_secs(1);

/// Limits of each edge; none where there is no number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Calls that begin in a second; as many at once.
    pub calls_per_s: Option<u32>,
    /// Bytes a second that are read of what it sends; more waits, by HTTP/2's flow control, on the edge.
    pub bytes_per_s: Option<u64>,
    /// Calls under way: requests, sequences that are continued, streams of training.
    pub calls: Option<usize>,
}

/// Puts a [`Quota`] before a server's services. Below [`AdmitLayer`](super::AdmitLayer), which says who asks.
#[derive(Clone)]
pub struct QuotaLayer {
    quota: Quota,
    edges: Arc<Mutex<HashMap<String, Arc<Mutex<Account>>>>>,
}

impl QuotaLayer {
    pub fn new(quota: Quota) -> Self {
        Self { quota, edges: Arc::default() }
    }

    /// Of the edge that this name or address stands for.
    fn account(&self, edge: &str) -> Arc<Mutex<Account>> {
        let mut edges = locked(&self.edges);
        if let Some(account) = edges.get(edge) {
            return account.clone();
        }
        if edges.len() >= REMEMBERED {
            let now = Instant::now();
            edges.retain(|_, account| !locked(account).is_idle(now));
        }
        let account = Arc::new(Mutex::new(Account::new(self.quota)));
        edges.insert(edge.into(), account.clone());
        account
    }
}

impl<S> Layer<S> for QuotaLayer {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, layer: self.clone() }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A refusal for want of room, which says when to ask again.
pub fn no_room(text: impl Into<String>) -> Status {
    later(text, LATER)
}

fn later(text: impl Into<String>, wait: Duration) -> Status {
    let mut status = Status::resource_exhausted(text);
    status.metadata_mut().insert(PUSHBACK, (wait.as_millis().max(1) as u64).into());
    status
}

/// What one edge has taken.
struct Account {
    quota: Quota,
    calls: Option<Bucket>,
    bytes: Option<Bucket>,
    under_way: usize,
}

impl Account {
    fn new(quota: Quota) -> Self {
        let bucket = |rate: f64| Bucket { rate, level: rate, at: Instant::now() };
        let calls = quota.calls_per_s.map(|rate| bucket(rate.into()));
        let bytes = quota.bytes_per_s.map(|rate| bucket(rate as f64));
        Self { quota, calls, bytes, under_way: 0 }
    }

    /// A call begins, or has to wait.
    fn begin(&mut self, now: Instant) -> Result<(), Status> {
        if let Some(most) = self.quota.calls.filter(|most| self.under_way >= *most) {
            let text = format!("this edge has {most} calls under way, and may not have more");
            return Err(no_room(text));
        }
        if let Some(bucket) = &mut self.calls {
            let wait = bucket.wait(1.0, now);
            if wait > Duration::ZERO {
                let text = format!("this edge may make {} calls a second", bucket.rate);
                return Err(later(text, wait));
            }
            bucket.level -= 1.0;
        }
        self.under_way += 1;
        Ok(())
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        let mut buckets = [&mut self.calls, &mut self.bytes].into_iter().flatten();
        self.under_way == 0 && buckets.all(|bucket| bucket.is_full(now))
    }
}

/// A token bucket that holds what a second gives.
struct Bucket {
    rate: f64,
    /// Below zero while more was taken than there was.
    level: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let gained = self.rate * now.saturating_duration_since(self.at).as_secs_f64();
        (self.level, self.at) = ((self.level + gained).min(self.rate), now);
    }

    /// Until it holds so much.
    fn wait(&mut self, amount: f64, now: Instant) -> Duration {
        self.fill(now);
        Duration::from_secs_f64(((amount - self.level) / self.rate).max(0.0))
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.rate
    }
}

/// See [`QuotaLayer`].
#[derive(Clone)]
pub struct Metered<S> {
    inner: S,
    layer: QuotaLayer,
}

impl<S> Service<Request<Body>> for Metered<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limited = self.layer.quota != Quota::default();
        let Some(edge) = limited.then(|| who(request.extensions())).flatten() else {
            return Box::pin(self.inner.call(request));
        };
        let account = self.layer.account(&edge);
        if let Err(status) = locked(&account).begin(Instant::now()) {
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let under_way = UnderWay(account.clone());
        let answer = self.inner.call(request.map(|body| Body::new(Slowed::new(body, account))));
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, under_way }))) })
    }
}

/// Counts a call until its answer has ended.
struct UnderWay(Arc<Mutex<Account>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        locked(&self.0).under_way -= 1;
    }
}

/// What an edge sends, not faster than it may.
struct Slowed {
    body: Body,
    account: Arc<Mutex<Account>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Slowed {
    fn new(body: Body, account: Arc<Mutex<Account>>) -> Self {
        Self { body, account, waiting: None }
    }

    /// Until what was read before is paid for.
    fn debt(&self) -> Duration {
        let mut account = locked(&self.account);
        let bytes = account.bytes.as_mut();
        bytes.map_or(Duration::ZERO, |bucket| bucket.wait(0.0, Instant::now()))
    }
}

impl http_body::Body for Slowed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            let debt = self.debt();
            if debt == Duration::ZERO || self.body.is_end_stream() {
                break;
            }
            self.waiting = Some(Box::pin(tokio::time::sleep(debt)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let data = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(|f| f.data_ref());
        if let (Some(data), Some(bucket)) = (data, &mut locked(&self.account).bytes) {
            bucket.level -= data.len() as f64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer whose call is under way until it has ended.
struct Held {
    body: Body,
    #[expect(dead_code, reason = "it is held for its end")]
    under_way: UnderWay,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
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
    use http_body_util::{BodyExt, Full};
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::security::Edge;

    fn request(edge: &str, bytes: usize) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(Bytes::from(vec![0; bytes]))));
        request.extensions_mut().insert(Edge(edge.into()));
        request
    }

    /// Reads what was sent, and answers.
    fn server(
        quota: Quota,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = Status> + Clone {
        QuotaLayer::new(quota).layer(service_fn(|request: Request<Body>| async move {
            request.into_body().collect().await?;
            Ok::<_, Status>(Response::new(Body::new(Full::new(Bytes::from_static(b"answer")))))
        }))
    }

    /// The gRPC code that a call ends with, and what it says of waiting.
    fn code(answer: &Response<Body>) -> (tonic::Code, bool) {
        let code = Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |s| s.code());
        (code, answer.headers().contains_key(PUSHBACK))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_come_back_with_time_and_each_edge_has_its_own() {
        let server = server(Quota { calls_per_s: Some(2), ..Quota::default() });
        let call = async |edge| code(&server.clone().oneshot(request(edge, 1)).await.unwrap());
        let (fine, refused) = ((tonic::Code::Ok, false), (tonic::Code::ResourceExhausted, true));
        assert_eq!([call("a").await, call("a").await, call("a").await], [fine, fine, refused]);
        assert_eq!(call("b").await, fine);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!([call("a").await, call("a").await], [fine, refused]);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_read_no_faster_than_agreed() {
        let server = server(Quota { bytes_per_s: Some(1000), ..Quota::default() });
        let begin = Instant::now();
        for _ in 0..6 {
            server.clone().oneshot(request("a", 1000)).await.unwrap();
        }
        // The first second's worth is there at once, and the last is paid for by whoever comes next.
        let took = begin.elapsed().as_secs_f64();
        assert!((3.9..4.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_counts_until_its_answer_has_ended() {
        let server = server(Quota { calls: Some(1), ..Quota::default() });
        let call = || server.clone().oneshot(request("a", 1));
        let first = call().await.unwrap();
        assert_eq!(code(&call().await.unwrap()).0, tonic::Code::ResourceExhausted);
        drop(first);
        assert_eq!(code(&call().await.unwrap()).0, tonic::Code::Ok);
    }

    #[tokio::test(start_paused = true)]
    async fn edges_that_are_idle_are_forgotten() {
        let layer = QuotaLayer::new(Quota { calls_per_s: Some(1), ..Quota::default() });
        for i in 0..2 * REMEMBERED {
            layer.account(&i.to_string());
        }
        assert!(locked(&layer.edges).len() <= REMEMBERED + 1);
    }
}
