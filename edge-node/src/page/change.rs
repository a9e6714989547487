//! Changes of what the edge does.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cleave_shared::config::SplitPoint;
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use crate::{
    reconfigure::{Setting, Unfulfilled, ask},
    serve::http_error,
};

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
    let Err(why) = ask(&shared.page.wishes, setting).await else {
        let config = shared.page.config.borrow();
        let (split_point, profile) = (config.split_point, &config.link.profile);
        return Json(json!({ "split_point": split_point, "profile": profile })).into_response();
    };
    let status = match why {
        Unfulfilled::Busy => StatusCode::TOO_MANY_REQUESTS,
        Unfulfilled::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Unfulfilled::Ending => StatusCode::SERVICE_UNAVAILABLE,
        Unfulfilled::Late => StatusCode::GATEWAY_TIMEOUT,
    };
    http_error(status, &why.to_string())
}
