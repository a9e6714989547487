//! `GET /metrics`, in Prometheus' text format.

use super::rest::wrong_method;
use axum::{Router, extract::State, routing::get};
use cleave_shared::{
    link::{self, Link},
    telemetry,
};

/// The name of this node's radio among the metrics.
const OWN: &str = "self";

pub fn metrics_router(link: Link) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .with_state(link)
}

async fn metrics(State(link): State<Link>) -> String {
    link::publish_metrics(&link, OWN);
    telemetry::metrics::render()
}
