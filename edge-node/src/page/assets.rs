//! The page's files, in the binary.

use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::serve::http_error;

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! assets {
    ($($name:literal as $kind:literal),* $(,)?) => {
        &[$(Asset {
            name: $name,
            kind: $kind,
            content: include_str!(concat!("../../page/", $name)),
        }),*]
    };
}

const INDEX: &str = "index.html";
const ASSETS: &[Asset] = assets![
    "index.html" as "text/html; charset=utf-8",
    "style.css" as "text/css; charset=utf-8",
    "icon.svg" as "image/svg+xml",
    "main.js" as "text/javascript; charset=utf-8",
    "api.js" as "text/javascript; charset=utf-8",
    "element.js" as "text/javascript; charset=utf-8",
    "chart.js" as "text/javascript; charset=utf-8",
    "bitmap.js" as "text/javascript; charset=utf-8",
    "draw.js" as "text/javascript; charset=utf-8",
    "answer.js" as "text/javascript; charset=utf-8",
    "cut.js" as "text/javascript; charset=utf-8",
    "live.js" as "text/javascript; charset=utf-8",
    "runs.js" as "text/javascript; charset=utf-8",
    "topology.js" as "text/javascript; charset=utf-8",
    "settings.js" as "text/javascript; charset=utf-8",
];

pub async fn index(headers: HeaderMap) -> Response {
    answer(INDEX, &headers)
}

pub async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    answer(&name, &headers)
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return http_error(StatusCode::NOT_FOUND, &format!("the page has no file {name:?}"));
    };
    let tag = format!("\"{:08x}\"", crc32c::crc32c(asset.content.as_bytes()));
    // Asked for each time and sent when it is new: another version of the edge brings another page.
    let cache = [(header::CACHE_CONTROL, "no-cache".to_string()), (header::ETAG, tag.clone())];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    (cache, [(header::CONTENT_TYPE, asset.kind)], asset.content).into_response()
}
