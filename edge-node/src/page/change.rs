//! Changes of what the edge does.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cleave_shared::config::SplitPoint;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::Shared;
use crate::{
    reconfigure::{Setting, Wish},
    serve::http_error,
};

/// Changes that may wait for those before them.
pub const QUEUE: usize = 8;
/// How long a change may take: weights that follow the cut cross the link.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    split_point: SplitPoint,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    profile: String,
}

pub async fn split_point(
    State(shared): State<Arc<Shared>>,
    body: Result<Json<Split>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(Split { split_point })) => wish(&shared, Setting::SplitPoint(split_point)).await,
        Err(rejection) => refused(&rejection),
    }
}

pub async fn link_profile(
    State(shared): State<Arc<Shared>>,
    body: Result<Json<Profile>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(Profile { profile })) => wish(&shared, Setting::LinkProfile(profile)).await,
        Err(rejection) => refused(&rejection),
    }
}

fn refused(rejection: &JsonRejection) -> Response {
    http_error(rejection.status(), &rejection.body_text())
}

/// Answers when the setting is in force.
async fn wish(shared: &Shared, setting: Setting) -> Response {
    let (done, outcome) = oneshot::channel();
    if shared.page.wishes.try_send(Wish { setting, done }).is_err() {
        let why = "other changes are under way; try again later";
        return http_error(StatusCode::TOO_MANY_REQUESTS, why);
    }
    match tokio::time::timeout(PATIENCE, outcome).await {
        Ok(Ok(Ok(()))) => {
            let config = shared.page.config.borrow();
            let (split_point, profile) = (config.split_point, &config.link.profile);
            Json(json!({ "split_point": split_point, "profile": profile })).into_response()
        }
        Ok(Ok(Err(why))) => http_error(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Ok(Err(_)) => http_error(StatusCode::SERVICE_UNAVAILABLE, "the edge is ending"),
        Err(_) => {
            let why = format!("not in force after {} s; it may be later", PATIENCE.as_secs());
            http_error(StatusCode::GATEWAY_TIMEOUT, &why)
        }
    }
}
