//! The link as a layer around whatever makes connections.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Layer, Service};

use super::cell::Link;
use super::stream::LinkStream;

/// Puts a [`Link`] under a client that makes its own connections, such as a tonic
/// channel, without that client knowing.
///
/// It wraps a `Service<Uri>` that returns a tokio stream, such as
/// [`TcpConnector`](super::TcpConnector); one that returns `TokioIo<S>` is adapted
/// with `.map_response(TokioIo::into_inner)`.
#[derive(Clone, Debug)]
pub struct LinkLayer {
    link: Link,
}

impl LinkLayer {
    /// All connections of all services it wraps share `link`.
    pub fn new(link: Link) -> Self {
        Self { link }
    }
}

impl<C> Layer<C> for LinkLayer {
    type Service = LinkConnector<C>;

    fn layer(&self, inner: C) -> LinkConnector<C> {
        LinkConnector { inner, link: self.link.clone() }
    }
}

/// A connector whose connections go over a [`Link`], in the form that tonic's
/// `Endpoint::connect_with_connector_lazy` takes.
#[derive(Clone, Debug)]
pub struct LinkConnector<C> {
    inner: C,
    link: Link,
}

impl<C, S> Service<Uri> for LinkConnector<C>
where
    C: Service<Uri, Response = S>,
    C::Future: Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = TokioIo<LinkStream<S>>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let link = self.link.clone();
        Box::pin(async move {
            let mut stream = link.shape(connecting.await?);
            stream.established().await;
            Ok(TokioIo::new(stream))
        })
    }
}
