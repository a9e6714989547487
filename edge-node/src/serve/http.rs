//! HTTP/1.1 for the edge's clients, who get as much time as they need and no more.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use cleave_shared::{
    security::{Accepted, Listener},
    timed::Timed,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio_stream::StreamExt;
use tower::BoxError;

/// How long a request's head may take; a connection that is kept alive ends after as long without one.
const HEAD: Duration = Duration::from_secs(30);
/// How long its body may take: a batch of images over a slow mobile network.
const BODY: Duration = Duration::from_secs(60);
/// Of a request's head, bytes.
const MOST_HEAD: usize = 64 << 10;

/// Serves until `end`; requests that are being answered then have as long as the caller waits.
pub async fn serve_http(mut listener: Listener, router: Router, end: impl Future<Output = ()>) {
    let router = guarded(router);
    let connections = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            () = &mut end => break,
        };
        match accepted {
            Some(Ok(accepted)) => serve_one(accepted, &router, &connections),
            // The listener goes on after a connection that failed.
            Some(Err(_)) => {}
            None => break,
        }
    }
    // Nobody else is let in.
    drop(listener);
    connections.shutdown().await;
}

fn serve_one(accepted: Accepted, router: &Router, connections: &GracefulShutdown) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MOST_HEAD)
        // A client may say that it sends no more, and wait for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(accepted), TowerToHyperService::new(router.clone()));
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended: {error}");
        }
    });
}

/// The routes, with what they need of a server around them.
fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(in_time)).layer(middleware::map_response(with_hint))
}

async fn in_time(request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(Timed::new(body, BODY, too_slow)))).await
}

fn too_slow() -> BoxError {
    format!("it took more than {} s", BODY.as_secs()).into()
}

/// Who was refused for want of room is told when to ask again (RFC 9110, 10.2.3).
async fn with_hint(mut response: Response) -> Response {
    let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    if later.contains(&response.status()) {
        let seconds = HeaderValue::from_static("1");
        response.headers_mut().entry(header::RETRY_AFTER).or_insert(seconds);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tower::ServiceExt;

    use super::*;
    use crate::serve::{InferError, fake::Fake, rest_router};

    /// The status of this failure, and when its client is told to ask again.
    async fn told(failure: InferError) -> (u16, Option<HeaderValue>) {
        let fake = Fake { failure: Some(failure), ..Fake::default() };
        let body = r#"{"inputs": [
            {"name": "input", "datatype": "FP32", "shape": [1, 2, 3], "data": [0, 0, 0, 0, 0, 0]}
        ]}"#;
        let request = Request::post("/v2/models/toy/infer").body(Body::from(body)).unwrap();
        let router = guarded(rest_router(Arc::new(fake), 4096));
        let response = router.oneshot(request).await.unwrap();
        (response.status().as_u16(), response.headers().get(header::RETRY_AFTER).cloned())
    }

    #[tokio::test]
    async fn who_may_succeed_later_is_told_when_to_ask_again() {
        let why = || "why".to_string();
        let later = Some(HeaderValue::from_static("1"));
        assert_eq!(told(InferError::Busy(why())).await, (429, later.clone()));
        assert_eq!(told(InferError::Unavailable(why())).await, (503, later));
        assert_eq!(told(InferError::BadInput(why())).await, (400, None));
        assert_eq!(told(InferError::Deadline(why())).await, (504, None));
        assert_eq!(told(InferError::Internal(why())).await, (500, None));
    }
}
