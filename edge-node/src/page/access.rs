//! Who may change something: nobody, unless there is a token, and then who sends it from the page itself.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use cleave_shared::security::Secret;

use super::Shared;
use crate::serve::http_error;

pub async fn may_change(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let token = shared.page.token.as_ref().map(|token| token.get());
    match refusal(token.as_deref(), request.headers()) {
        Some((StatusCode::UNAUTHORIZED, why)) => {
            let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
            (scheme, http_error(StatusCode::UNAUTHORIZED, why)).into_response()
        }
        Some((status, why)) => http_error(status, why),
        None => next.run(request).await,
    }
}

fn refusal(token: Option<&Secret>, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    if is_foreign(headers) {
        return Some((StatusCode::FORBIDDEN, "another site's page may change nothing here"));
    }
    let Some(token) = token else {
        let why = "this edge has no admin token, so nothing can be changed here; set edge.admin_token to a file";
        return Some((StatusCode::FORBIDDEN, why));
    };
    let sent = headers.get(header::AUTHORIZATION).and_then(|sent| sent.to_str().ok());
    match sent {
        Some(sent) if token.opens(sent) => None,
        Some(_) => Some((StatusCode::UNAUTHORIZED, "this is not the admin token of this edge")),
        None => {
            Some((StatusCode::UNAUTHORIZED, "send the admin token: Authorization: Bearer TOKEN"))
        }
    }
}

/// Whether a browser says that the request comes from somewhere else than this server's own page. What is no browser
/// says nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let Some(origin) = text("origin") else { return false };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_none() || authority != text("host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn other_sites_are_foreign() {
        let host = ("host", "127.0.0.1:8000");
        for own in [
            vec![],
            vec![host],
            vec![host, ("origin", "http://127.0.0.1:8000")],
            vec![host, ("origin", "https://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")],
            vec![host, ("sec-fetch-site", "none")],
        ] {
            assert!(!is_foreign(&headers(&own)), "{own:?}");
        }
        for other in [
            vec![host, ("origin", "http://127.0.0.1:9000")],
            vec![host, ("origin", "http://evil.example")],
            vec![host, ("origin", "null")],
            vec![("origin", "http://127.0.0.1:8000")],
            vec![host, ("sec-fetch-site", "cross-site")],
            vec![host, ("sec-fetch-site", "same-site")],
        ] {
            assert!(is_foreign(&headers(&other)), "{other:?}");
        }
    }
}
