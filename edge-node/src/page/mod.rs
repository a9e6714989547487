//! The page of a running edge, `/page/`: ask the model, see what crossed the cut and where the time went, move the
//! cut, watch.
//!
//! The page itself is files in the binary ([`assets`]); what it shows comes from `/page/api/...` as JSON, which
//! docs/page.md describes:
//!
//! - [`edge`]: what the edge serves, and what it measured. [`Observed`] is the layer around the predictor that measures,
//!   into a [`Ledger`]; [`clouds`] says which clouds answer.
//! - [`activation`]: what one input sends across the cut.
//! - [`plan`]: what the planner predicts for each split point.
//! - [`runs`]: training curves.
//! - [`change`]: another split point or link profile, for who has the token ([`access`]). A change is a
//!   [`Wish`]: the configuration's own way into force.

mod access;
mod activation;
mod assets;
mod change;
mod clouds;
mod edge;
mod ledger;
mod observed;
mod plan;
mod runs;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware,
    response::{Redirect, Response},
    routing::{get, post, put},
};
use cleave_shared::{config::Config, link::Link};
use tokio::sync::{Mutex, mpsc, watch};

use self::plan::Predictions;
pub use self::{clouds::Clouds, ledger::Ledger, observed::Observed};
use crate::{
    cloud::CloudClient,
    predict::{Current, SplitPredictor},
    reconfigure::Wish,
    serve::{Access, http_error},
};

/// Largest body of a change, bytes: a number or a name.
const MAX_CHANGE: usize = 4096;

/// Only what comes with the page is loaded, and nobody else's page has it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page shows and changes.
pub struct Page {
    pub predictor: Arc<SplitPredictor>,
    pub ledger: Arc<Ledger>,
    pub current: Current,
    /// The configuration in force.
    pub config: watch::Receiver<Config>,
    pub link: Link,
    /// The channel that requests use.
    pub cloud: CloudClient,
    pub clouds: Clouds,
    /// Where link profiles are looked up by name.
    pub profiles: Option<PathBuf>,
    pub access: Arc<Access>,
    pub wishes: mpsc::Sender<Wish>,
}

struct Shared {
    page: Page,
    begun: Instant,
    predictions: Predictions,
    /// Held by who reads runs.
    reading: Mutex<()>,
}

/// The page's routes. `max_body_bytes` is the longest body of an input.
pub fn page_router(page: Page, max_body_bytes: usize) -> Router {
    let (predictions, reading) = (Predictions::default(), Mutex::default());
    let shared = Arc::new(Shared { page, begun: Instant::now(), predictions, reading });
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/page/") }))
        .route("/page", get(|| async { Redirect::permanent("/page/") }))
        .route("/page/", get(assets::index))
        .route("/page/{file}", get(assets::file))
        .route("/page/api/edge", get(edge::edge))
        .route("/page/api/state", get(edge::state))
        .route("/page/api/plan", get(plan::predicted))
        .route("/page/api/activation", post(activation::activation))
        .route("/page/api/runs", get(runs::list))
        .route("/page/api/runs/{run}", get(runs::curves))
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .merge(changes(&shared))
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::map_response(guarded))
        .with_state(shared)
}

/// What changes something, behind the token.
fn changes(shared: &Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/page/api/split-point", put(change::split_point))
        .route("/page/api/link-profile", put(change::link_profile))
        .layer(DefaultBodyLimit::max(MAX_CHANGE))
        .route_layer(middleware::from_fn_with_state(shared.clone(), access::may_change))
}

/// Adds what browsers are to refuse.
async fn guarded(mut response: Response) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}; see the Allow header", uri.path());
    http_error(StatusCode::METHOD_NOT_ALLOWED, &message)
}
