//! What the edge is, and what it does at this moment.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cleave_shared::{
    link::{DeviceStatus, LaneCounters, Profile},
    model::{Inspection, Port},
};
use serde_json::{Value, json};

use super::Shared;
use crate::serve::{Predictor, http_error};

/// What stays while the edge runs.
pub async fn edge(State(shared): State<Arc<Shared>>) -> Response {
    let spec = shared.page.config.borrow().model.clone();
    let profiles = shared.page.profiles.clone();
    // Files are read, and stages are built to be counted.
    let work = move || {
        let links: Vec<Value> = Profile::known(profiles.as_deref())
            .iter()
            .filter_map(|name| Some(link(name, &Profile::find(name, profiles.as_deref()).ok()?)))
            .collect();
        spec.inspect().map(|found| (found, links)).map_err(|e| e.to_string())
    };
    let (found, links) = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(found)) => found,
        Ok(Err(problem)) => return http_error(StatusCode::INTERNAL_SERVER_ERROR, &problem),
        Err(error) => return http_error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    };
    let info = shared.page.predictor.model();
    let Inspection { family, stages, cuts, parameters, .. } = found;
    let stages: Vec<String> = stages.into_iter().map(|stage| stage.name).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": {
            "name": info.name, "family": family, "parameters": parameters, "stages": stages, "cuts": cuts,
            "inputs": info.inputs.iter().map(port).collect::<Vec<_>>(),
            "outputs": info.outputs.iter().map(port).collect::<Vec<_>>(),
        },
        "links": links,
        "may_change": shared.page.access.has_token(),
    }))
    .into_response()
}

fn port(port: &Port) -> Value {
    json!({ "name": port.name, "datatype": port.dtype.name(), "shape": port.largest() })
}

/// A rate of 0 is no limit; one that follows a trace is none.
fn link(name: &str, profile: &Profile) -> Value {
    let rate = |bps: u64| (bps > 0 && profile.trace.is_none()).then_some(bps);
    json!({
        "name": name, "description": profile.description, "delay_ms": profile.delay_ms(),
        "uplink_bps": rate(profile.uplink.rate_bps), "downlink_bps": rate(profile.downlink.rate_bps),
    })
}

/// What changes from second to second.
pub async fn state(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let page = &shared.page;
    let deployed = page.current.borrow().clone();
    let config = page.config.borrow().clone();
    let (status, counted) = (page.link.status(), page.link.counters());
    let DeviceStatus { uplink_bps, downlink_bps, rtt_ns, .. } = status;
    let lane = |lane: &LaneCounters, bps: Option<u64>| json!({ "bytes": lane.delivered_bytes, "queue_bytes": lane.queue_bytes, "bps": bps });
    Json(json!({
        "uptime_s": shared.begun.elapsed().as_secs_f64(),
        "ready": deployed.is_some(),
        "deployed": deployed.map(|d| json!({
            "split_point": d.target.split, "codec": d.codec.name(), "weights": d.version(),
        })),
        "auto": config.split_point.is_auto(),
        "link": {
            "profile": config.link.profile,
            "rtt_ms": (rtt_ns > 0).then_some(rtt_ns as f64 / 1e6),
            "uplink": lane(&counted.uplink, uplink_bps),
            "downlink": lane(&counted.downlink, downlink_bps),
        },
        "requests": page.ledger.requests(),
        "splits": page.ledger.splits(),
        "clouds": page.clouds.shown(page.cloud.instance()),
    }))
}
