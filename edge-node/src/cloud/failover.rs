//! Several clouds behind one channel: a connection that broke is made again to the next that answers.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use tower::{BoxError, Layer, Service, ServiceExt};

/// How long an address may take to answer, its handshake included: the only one, and one of several.
const ALONE: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_millis(1500);

/// Makes [`Failover`] connectors.
#[derive(Clone)]
pub struct FailoverLayer {
    clouds: Arc<[Uri]>,
    /// Place of the one that is tried first.
    first: usize,
}

impl FailoverLayer {
    /// At least one address, in the order in which they are tried first.
    pub fn new(clouds: Vec<Uri>) -> Self {
        Self { clouds: clouds.into(), first: 0 }
    }

    /// The same, begun at any of them: many edges share the clouds among themselves (as gRPC's `pick_first` with
    /// `shuffleAddressList`, A62).
    pub fn shuffled(mut self) -> Self {
        self.first = rand::random_range(0..self.clouds.len().max(1));
        self
    }

    fn attempt(&self) -> Duration {
        if self.clouds.len() == 1 { ALONE } else { ATTEMPT }
    }

    /// How long it may take until all have been tried.
    pub fn patience(&self) -> Duration {
        self.attempt() * u32::try_from(self.clouds.len()).unwrap_or(u32::MAX)
    }
}

impl<C> Layer<C> for FailoverLayer {
    type Service = Failover<C>;

    fn layer(&self, inner: C) -> Failover<C> {
        Failover { inner, layer: self.clone(), next: Arc::new(self.first.into()) }
    }
}

/// A connector that leaves it to itself where it connects to. Each connection begins with the address after that of
/// the one before: a node that hangs may still take connections, so the one that broke is the last to be tried.
#[derive(Clone)]
pub struct Failover<C> {
    inner: C,
    layer: FailoverLayer,
    next: Arc<AtomicUsize>,
}

impl<C> Service<Uri> for Failover<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Response: Send,
    C::Error: Into<BoxError> + Send,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { inner, layer, next } = self.clone();
        let (attempt, clouds) = (layer.attempt(), layer.clouds);
        Box::pin(async move {
            let first = next.load(Ordering::Relaxed);
            let mut why: BoxError = "there is no cloud to connect to".into();
            for at in (first..first + clouds.len()).map(|i| i % clouds.len()) {
                let cloud = &clouds[at];
                let connecting = inner.clone().oneshot(cloud.clone());
                why = match tokio::time::timeout(attempt, connecting).await {
                    Ok(Ok(connection)) => {
                        next.store((at + 1) % clouds.len(), Ordering::Relaxed);
                        if clouds.len() > 1 {
                            tracing::info!(%cloud, "connected");
                        }
                        return Ok(connection);
                    }
                    Ok(Err(error)) => error.into(),
                    Err(elapsed) => elapsed.into(),
                };
                if clouds.len() > 1 {
                    tracing::warn!(%cloud, "does not answer: {why}");
                }
            }
            Err(why)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network in which only these hosts answer.
    fn connector(
        up: Vec<&'static str>,
    ) -> impl Service<Uri, Response = String, Error = BoxError, Future: Send> + Clone + Send + 'static
    {
        tower::service_fn(move |uri: Uri| {
            let host = uri.host().unwrap_or_default().to_string();
            let answers = up.iter().any(|up| *up == host);
            async move {
                match (answers, host.as_str()) {
                    (true, _) => Ok(host),
                    (false, "hangs") => std::future::pending().await,
                    (false, _) => Err(BoxError::from(format!("{host} refuses"))),
                }
            }
        })
    }

    fn clouds(hosts: &[&'static str]) -> FailoverLayer {
        let uri = |host: &&str| format!("http://{host}:1").parse().unwrap();
        FailoverLayer::new(hosts.iter().map(uri).collect())
    }

    async fn connect(
        failover: &mut Failover<
            impl Service<Uri, Response = String, Error = BoxError, Future: Send>
            + Clone
            + Send
            + 'static,
        >,
    ) -> String {
        failover
            .call(Uri::from_static("http://any"))
            .await
            .unwrap_or_else(|e| format!("error: {e}"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_that_answers_is_used() {
        let mut failover = clouds(&["a", "b", "c"]).layer(connector(vec!["a", "c"]));
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(connect(&mut failover).await);
        }
        assert_eq!(order, ["a", "c", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn shuffled_edges_share_the_clouds() {
        let hosts = ["a", "b", "c"];
        let mut taken = std::collections::BTreeMap::<String, usize>::new();
        for _ in 0..300 {
            let layer = clouds(&hosts).shuffled();
            *taken
                .entry(connect(&mut layer.layer(connector(hosts.to_vec()))).await)
                .or_default() += 1;
        }
        // 100 of each, give or take eight standard deviations.
        assert!(hosts.iter().all(|h| (35..=165).contains(&taken[*h])), "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_left() {
        let layer = clouds(&["hangs", "b"]);
        assert_eq!((layer.patience(), clouds(&["b"]).patience()), (2 * ATTEMPT, ALONE));
        assert_eq!(connect(&mut layer.layer(connector(vec!["b"]))).await, "b");
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_it_is_the_last_error() {
        let mut failover = clouds(&["hangs", "b"]).layer(connector(vec![]));
        assert_eq!(connect(&mut failover).await, "error: b refuses");
    }
}
