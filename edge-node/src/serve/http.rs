//! HTTP/1.1 for the edge's clients, who get as much time as they need and no more.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use bytes::Bytes;
use cleave_shared::security::{Accepted, Listener};
use http_body::{Frame, SizeHint};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::time::{Sleep, sleep};
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
    let router =
        router.layer(middleware::from_fn(in_time)).layer(middleware::map_response(with_hint));
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

async fn in_time(request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(Timed { body, over: Box::pin(sleep(BODY)) }))).await
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

/// A body that has to arrive in time.
struct Timed {
    body: Body,
    over: Pin<Box<Sleep>>,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() && self.over.as_mut().poll(cx).is_ready() {
            let text = format!("it took more than {} s", BODY.as_secs());
            return Poll::Ready(Some(Err(text.into())));
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
