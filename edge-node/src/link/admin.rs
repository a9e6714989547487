//! The proxy's own HTTP interface: metrics, and the profile in force.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use cleave_shared::{link, telemetry};
use serde_json::json;
use tokio::net::TcpListener;

use super::edges::{Edges, ProfileSource};

/// Largest body of a request, bytes: a name.
const MAX_BODY: usize = 4096;

/// What a switch of profiles changes.
#[derive(Debug)]
pub struct Control {
    pub edges: Edges,
    source: Mutex<ProfileSource>,
}

impl Control {
    pub fn new(edges: Edges, source: ProfileSource) -> Self {
        Self { edges, source: Mutex::new(source) }
    }

    /// Puts all edges on the network of that name.
    pub fn switch(&self, name: &str) -> Result<(), String> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        // A name only: who may switch profiles may not read files of this machine.
        if name.is_empty() || name.contains(['/', '\\']) || name.ends_with(".toml") {
            return Err(format!("{name:?} is not the name of a profile"));
        }
        let next = ProfileSource { name: name.to_owned(), folder: source.folder.clone() };
        self.edges.set_profile(next.load()?);
        *source = next;
        tracing::info!(profile = name, "link profile changed");
        Ok(())
    }

    /// Reads the profile's file again, if it has changed.
    pub fn refresh(&self) -> Result<(), String> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = source.load()?;
        if profile != self.edges.profile() {
            self.edges.set_profile(profile);
            tracing::info!(profile = source.name, "link profile read anew");
        }
        Ok(())
    }

    /// The link of an edge at that address.
    pub fn link(&self, address: IpAddr) -> link::Link {
        self.edges.link(address)
    }

    /// The folder that names are looked up in.
    pub fn folder(&self) -> Option<PathBuf> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).folder.clone()
    }
}

/// Serves `GET /metrics`, `GET /profile`, and `PUT /profile` with a name as its body.
pub async fn serve(listener: TcpListener, control: Arc<Control>) -> Result<(), String> {
    telemetry::metrics::init();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/profile", get(profile).put(switch))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(control);
    axum::serve(listener, router).await.map_err(|e| format!("--admin: {e}"))
}

async fn metrics(State(control): State<Arc<Control>>) -> String {
    for (name, edge) in control.edges.all() {
        link::publish_metrics(&edge, &name);
    }
    telemetry::metrics::render()
}

async fn profile(State(control): State<Arc<Control>>) -> Json<serde_json::Value> {
    let profile = control.edges.profile();
    let rtt_ms = link::mean_round_trip(&profile).map(|time| time.as_secs_f64() * 1e3);
    let known = link::Profile::known(control.folder().as_deref());
    Json(json!({
        "profile": profile.name, "description": profile.description, "rtt_ms": rtt_ms,
        "known": known,
    }))
}

async fn switch(State(control): State<Arc<Control>>, name: String) -> (StatusCode, String) {
    match control.switch(name.trim()) {
        Ok(()) => (StatusCode::OK, format!("{}\n", name.trim())),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}
