//! A call ends when its answer is of no use any more.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::timeout_at;
use tower::{BoxError, Layer, Service, timeout::error::Elapsed};

use super::InferCall;

/// Makes [`Within`] services. Unlike tower's timeout, which is the same for all calls, each call brings its own.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = Within<S>;

    fn layer(&self, inner: S) -> Within<S> {
        Within { inner }
    }
}

/// See [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct Within<S> {
    inner: S,
}

impl<S> Service<InferCall> for Within<S>
where
    S: Service<InferCall>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, call: InferCall) -> Self::Future {
        let deadline = call.deadline;
        let answer = self.inner.call(call);
        Box::pin(async move {
            let Some(deadline) = deadline else { return answer.await.map_err(Into::into) };
            match timeout_at(deadline.instant().into(), answer).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Err(Elapsed::new().into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cleave_shared::deadline::Deadline;
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn each_call_has_its_own_time() {
        let service = DeadlineLayer.layer(service_fn(async |call: InferCall| {
            tokio::time::sleep(Duration::from_millis(call.output_bytes as u64)).await;
            Ok::<_, BoxError>(())
        }));
        let call = async |ms, within| {
            let call = InferCall {
                agreement: Default::default(),
                activation: Vec::new(),
                output_bytes: ms,
                deadline: within,
            };
            service.clone().oneshot(call).await
        };
        assert!(call(1, None).await.is_ok());
        assert!(call(1, Some(Deadline::after(Duration::from_secs(600)))).await.is_ok());
        let error = call(600_000, Some(Deadline::after(Duration::from_millis(10)))).await;
        assert!(error.unwrap_err().is::<Elapsed>());
    }
}
