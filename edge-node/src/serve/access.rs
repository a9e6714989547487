//! Who may change something: nobody, unless there is a token, and then who sends it, from no other site's page.

use axum::http::{HeaderMap, StatusCode, header};
use cleave_shared::security::{Rotating, Secret};
use tonic::Status;

/// The token of who may change what the edge does.
pub struct Access {
    /// None: nobody may change anything.
    token: Option<Rotating<Secret>>,
}

/// Why someone may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// 401 or 403.
    pub status: StatusCode,
    pub why: &'static str,
}

impl Access {
    pub fn new(token: Option<Rotating<Secret>>) -> Self {
        Self { token }
    }

    /// Whether there is a token at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether who sent these headers may change something.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let token = self.token.as_ref().map(|token| token.get());
        refusal(token.as_deref(), headers).map_or(Ok(()), Err)
    }
}

impl From<Refused> for Status {
    fn from(Refused { status, why }: Refused) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::unauthenticated(why),
            _ => Self::permission_denied(why),
        }
    }
}

fn refusal(token: Option<&Secret>, headers: &HeaderMap) -> Option<Refused> {
    let refused = |status, why| Some(Refused { status, why });
    if is_foreign(headers) {
        return refused(StatusCode::FORBIDDEN, "another site's page may change nothing here");
    }
    let Some(token) = token else {
        let why = "this edge has no admin token, so nothing can be changed here; set edge.admin_token to a file";
        return refused(StatusCode::FORBIDDEN, why);
    };
    let sent = headers.get(header::AUTHORIZATION).and_then(|sent| sent.to_str().ok());
    match sent {
        Some(sent) if token.opens(sent) => None,
        Some(_) => refused(StatusCode::UNAUTHORIZED, "this is not the admin token of this edge"),
        None => {
            refused(StatusCode::UNAUTHORIZED, "send the admin token: Authorization: Bearer TOKEN")
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
