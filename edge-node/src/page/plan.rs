//! What the planner predicts for each split point, from what was measured before.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cleave_shared::config::{Config, LinkConfig, PlanConfig};
use serde_json::json;
use tokio::sync::Mutex;

use super::Shared;
use crate::{
    plan::{Measured, Predicted, Row, grounds_of},
    profile,
    serve::http_error,
};

const NOT_MEASURED: &str = "not predicted: the speed of this machine and of the cloud is not measured yet; run edge-node \
                            profile with the same configuration";

/// The last prediction: simulating a link takes a while.
#[derive(Default)]
pub struct Predictions(Mutex<Option<Known>>);

struct Known {
    of: (LinkConfig, PlanConfig, Measured),
    rows: Vec<Row>,
}

pub async fn predicted(State(shared): State<Arc<Shared>>) -> Response {
    let config = shared.page.config.borrow().clone();
    let (profile, codec) = (config.link.profile.clone(), config.codec.activation.clone());
    let answer = |rows: Vec<Row>, problem: Option<&str>| {
        let body = json!({ "profile": profile, "codec": codec, "rows": rows, "problem": problem });
        Json(body).into_response()
    };
    match shared.predictions.of(&config).await {
        Ok(Some(rows)) => answer(rows, None),
        Ok(None) => answer(Vec::new(), Some(NOT_MEASURED)),
        Err(problem) => http_error(StatusCode::SERVICE_UNAVAILABLE, &problem),
    }
}

impl Predictions {
    /// None without measurements.
    async fn of(&self, config: &Config) -> Result<Option<Vec<Row>>, String> {
        let Some(measured) = profile::known(config, config.plan.request())? else {
            return Ok(None);
        };
        let of = (config.link.clone(), config.plan.clone(), measured.clone());
        // Whoever asks meanwhile waits for the same answer.
        let mut last = self.0.lock().await;
        if let Some(known) = last.as_ref().filter(|known| known.of == of) {
            return Ok(Some(known.rows.clone()));
        }
        let found = grounds_of(config, measured).await?.plan(config);
        let best = found.best().map(|best| best.choice.clone());
        let names = config.model.stage_names();
        let after = |split: usize| split.checked_sub(1).map_or("input", |i| names[i].as_str());
        let row =
            |p: &Predicted| Row::new(p, after(p.choice.split), best.as_ref() == Some(&p.choice));
        let rows: Vec<Row> = found.all.iter().map(row).collect();
        *last = Some(Known { of, rows: rows.clone() });
        Ok(Some(rows))
    }
}
