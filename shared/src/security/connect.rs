//! TLS as a layer around whatever makes connections.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tower::{BoxError, Layer, Service};

use super::ClientTls;

/// Encrypts the connections of a connector such as [`LinkConnector`](crate::link::LinkConnector) to `https`
/// addresses; those to `http` addresses stay as they are.
#[derive(Clone)]
pub struct TlsLayer {
    tls: Option<Arc<ClientTls>>,
    name: Option<String>,
}

impl TlsLayer {
    /// Without an identity, `https` addresses are refused.
    pub fn new(tls: Option<Arc<ClientTls>>) -> Self {
        Self { tls, name: None }
    }

    /// The server is to have this name, whatever address it is found at.
    pub fn named(self, name: String) -> Self {
        Self { name: Some(name), ..self }
    }
}

impl<C> Layer<C> for TlsLayer {
    type Service = Secure<C>;

    fn layer(&self, inner: C) -> Secure<C> {
        Secure { inner, layer: self.clone() }
    }
}

/// See [`TlsLayer`].
#[derive(Clone)]
pub struct Secure<C> {
    inner: C,
    layer: TlsLayer,
}

impl<C, S> Service<Uri> for Secure<C>
where
    C: Service<Uri, Response = TokioIo<S>>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = TokioIo<Either<S, TlsStream<S>>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let secret = uri.scheme_str() == Some("https");
        let TlsLayer { tls, name } = self.layer.clone();
        let host = || uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let name = name.unwrap_or_else(host);
        let connecting = self.inner.call(uri);
        Box::pin(async move {
            let io = connecting.await.map_err(Into::into)?.into_inner();
            if !secret {
                return Ok(TokioIo::new(Either::Left(io)));
            }
            let tls = tls.ok_or("https needs [security] ca, certificate and key")?;
            let name = ServerName::try_from(name)?;
            // Of now: files may have changed since the last connection.
            let connector = TlsConnector::from(tls.get());
            let stream = connector.connect(name, io).await?;
            Ok(TokioIo::new(Either::Right(stream)))
        })
    }
}
