//! Which edges are served.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::Status;
use tower::{Layer, Service};

use super::{Edge, Peer, Rotating, Tokens};

/// Anybody who has come as far as this may ask whether the node is healthy.
const OPEN: &str = "/grpc.health.v1.Health/";

/// What an edge needs to be served.
#[derive(Default)]
pub struct Admission {
    /// Names that are served; none: all that have shown who they are.
    pub edges: Vec<String>,
    /// Where tokens are asked for, of all: a certificate alone is not enough there.
    pub tokens: Option<Rotating<Tokens>>,
}

impl Admission {
    /// The name of who asks, if it is to be served.
    fn name_of<B>(&self, request: &Request<B>) -> Result<Option<String>, Status> {
        let certified = request.extensions().get::<Peer>().and_then(|peer| peer.name.clone());
        let name = match &self.tokens {
            None => certified,
            Some(tokens) => {
                let name = named(&tokens.get(), request)?;
                if certified.as_ref().is_some_and(|certified| *certified != name) {
                    let text = format!("the token is {name}'s, and the certificate is not");
                    return Err(Status::permission_denied(text));
                }
                Some(name)
            }
        };
        if self.edges.is_empty() || name.as_ref().is_some_and(|name| self.edges.contains(name)) {
            return Ok(name);
        }
        Err(match name {
            Some(name) => {
                Status::permission_denied(format!("{name} is not among the cloud's security.edges"))
            }
            None => Status::unauthenticated(
                "security.edges needs a certificate or a token that tells who the edge is",
            ),
        })
    }
}

fn named<B>(tokens: &Tokens, request: &Request<B>) -> Result<String, Status> {
    let Some(header) = request.headers().get(AUTHORIZATION) else {
        return Err(Status::unauthenticated("this cloud asks for a token: set security.token"));
    };
    let name = header.to_str().ok().and_then(|header| tokens.name_of(header));
    name.map(str::to_string).ok_or_else(|| Status::unauthenticated("the token is not known here"))
}

/// Puts an [`Admission`] before a server's services.
#[derive(Clone)]
pub struct AdmitLayer {
    admission: Arc<Admission>,
}

impl AdmitLayer {
    pub fn new(admission: Admission) -> Self {
        Self { admission: Arc::new(admission) }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, admission: self.admission.clone() }
    }
}

/// See [`AdmitLayer`].
#[derive(Clone)]
pub struct Admit<S> {
    inner: S,
    admission: Arc<Admission>,
}

impl<S, B, R> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(OPEN) {
            return Box::pin(self.inner.call(request));
        }
        match self.admission.name_of(&request) {
            Ok(name) => {
                if let Some(name) = name {
                    request.extensions_mut().insert(Edge(name));
                }
                Box::pin(self.inner.call(request))
            }
            Err(status) => {
                tracing::info!(path = request.uri().path(), "refused: {}", status.message());
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: Option<&str>, token: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        let peer = Peer { address: ([10, 0, 0, 1], 1).into(), name: name.map(str::to_string) };
        request.extensions_mut().insert(peer);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        request
    }

    fn code(admission: &Admission, name: Option<&str>, token: Option<&str>) -> tonic::Code {
        match admission.name_of(&request(name, token)) {
            Ok(_) => tonic::Code::Ok,
            Err(status) => status.code(),
        }
    }

    #[test]
    fn names_that_are_not_listed_are_refused() {
        use tonic::Code::{Ok, PermissionDenied, Unauthenticated};
        let open = Admission::default();
        assert_eq!(code(&open, None, None), Ok);
        let listed = Admission { edges: vec!["one".into()], tokens: None };
        assert_eq!(code(&listed, Some("one"), None), Ok);
        assert_eq!(code(&listed, Some("two"), None), PermissionDenied);
        assert_eq!(code(&listed, None, None), Unauthenticated);
    }

    #[test]
    fn a_token_is_asked_for_where_there_are_tokens() {
        use tonic::Code::{Ok, PermissionDenied, Unauthenticated};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, "one 0123456789abcdef\ntwo fedcba9876543210\n").unwrap();
        let tokens = || Some(Tokens::read(file.clone()).unwrap());
        let (first, second) = (Some("0123456789abcdef"), Some("fedcba9876543210"));
        let any = Admission { edges: Vec::new(), tokens: tokens() };
        assert_eq!(code(&any, None, first), Ok);
        assert_eq!(code(&any, None, None), Unauthenticated);
        assert_eq!(code(&any, None, Some("0000000000000000")), Unauthenticated);
        assert_eq!(code(&any, Some("one"), first), Ok);
        assert_eq!(code(&any, Some("two"), first), PermissionDenied);
        let listed = Admission { edges: vec!["one".into()], tokens: tokens() };
        assert_eq!(code(&listed, None, second), PermissionDenied);
    }
}
