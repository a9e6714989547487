//! Plain TCP connections, for the link to wrap.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use tokio::net::TcpStream;
use tower::Service;

/// Connects to a URI's host and port, and yields the bare socket: what
/// [`LinkLayer`](super::LinkLayer) needs to have inside.
///
/// Nagle's algorithm is off (`TCP_NODELAY`): its waiting would be added to the
/// link's delay. Without a port, `https` means 443 and all else 80.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Service<Uri> for TcpConnector {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let (host, port) = host_and_port(&uri)?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

/// The address part of a URI; an IPv6 host loses its brackets.
fn host_and_port(uri: &Uri) -> io::Result<(&str, u16)> {
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("no host to connect to in '{uri}'"))
    })?;
    let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok((bare, uri.port_u16().unwrap_or(default_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_host_and_port() {
        let parse = |text: &'static str| {
            let uri = Uri::from_static(text);
            host_and_port(&uri).map(|(host, port)| (host.to_owned(), port)).ok()
        };
        assert_eq!(parse("http://cloud:50051"), Some(("cloud".into(), 50051)));
        assert_eq!(parse("http://[::1]:7/x"), Some(("::1".into(), 7)));
        assert_eq!(parse("https://cloud"), Some(("cloud".into(), 443)));
        assert_eq!(parse("http://cloud/"), Some(("cloud".into(), 80)));
        assert_eq!(parse("/only/a/path"), None);
    }
}
