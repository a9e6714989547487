//! The runs in the folder of runs: what they are, and their curves.

use std::{
    fs,
    path::Path as FilePath,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cleave_shared::checkpoint::check_run_id;
use serde::Serialize;
use serde_json::{Value, json};

use super::Shared;
use crate::{
    deploy::Pointer,
    run_page::rows,
    serve::http_error,
    train::{Line, RunRecord, recorded_lines},
};

/// Runs that are listed, the newest.
const MOST: usize = 50;
/// Largest file of a run's metrics that is read, bytes: some 500,000 steps.
const LARGEST: u64 = 256 << 20;

#[derive(Debug, Serialize)]
struct Run {
    run: String,
    family: &'static str,
    split_point: usize,
    batch_size: usize,
    codec: String,
    /// When a step was written last, s since 1970.
    written_s: u64,
    deployed: bool,
}

type Problem = (StatusCode, String);

pub async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let runs = shared.page.config.borrow().runs.dir.clone();
    read(&shared, move || {
        let (found, all) = listed(&runs);
        Ok(json!({ "runs": found, "all": all }))
    })
    .await
}

pub async fn curves(State(shared): State<Arc<Shared>>, Path(run): Path<String>) -> Response {
    let runs = shared.page.config.borrow().runs.dir.clone();
    read(&shared, move || curves_of(&runs, &run)).await
}

/// Reads files on a thread where that may take its time, one request after the other.
async fn read(
    shared: &Shared,
    work: impl FnOnce() -> Result<Value, Problem> + Send + 'static,
) -> Response {
    let _turn = shared.reading.lock().await;
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(found)) => Json(found).into_response(),
        Ok(Err((status, problem))) => http_error(status, &problem),
        Err(error) => http_error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The newest runs, and how many there are.
fn listed(runs: &FilePath) -> (Vec<Run>, usize) {
    let parent = runs.join("edge");
    let entries = fs::read_dir(&parent).into_iter().flatten().flatten();
    let dated = entries.filter_map(|entry| {
        let run = entry.file_name().into_string().ok()?;
        check_run_id(&run).ok()?;
        let folder = entry.path();
        let written = fs::metadata(folder.join("metrics.jsonl")).ok()?.modified().ok()?;
        folder.join("run.json").is_file().then_some((written, run))
    });
    let mut dated: Vec<(SystemTime, String)> = dated.collect();
    dated.sort_by(|a, b| b.cmp(a));
    let all = dated.len();
    let deployed = Pointer::read(runs).ok().flatten().map(|pointer| pointer.run);
    let described = dated.into_iter().take(MOST).filter_map(|(written, run)| {
        let record = RunRecord::read(runs, &run).ok()??;
        Some(Run {
            family: record.model.family_name(),
            split_point: record.split_point,
            batch_size: record.batch_size,
            codec: record.activation_codec,
            written_s: written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            deployed: deployed.as_ref() == Some(&run),
            run,
        })
    });
    (described.collect(), all)
}

fn curves_of(runs: &FilePath, run: &str) -> Result<Value, Problem> {
    // Before a path is made of it.
    check_run_id(run).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let broken = |problem: String| (StatusCode::INTERNAL_SERVER_ERROR, problem);
    if RunRecord::read(runs, run).map_err(broken)?.is_none() {
        return Err((StatusCode::NOT_FOUND, format!("there is no run {run:?} here")));
    }
    let folder = runs.join("edge").join(run);
    let bytes = fs::metadata(folder.join("metrics.jsonl")).map_or(0, |file| file.len());
    if bytes > LARGEST {
        let problem =
            format!("the metrics of {run} have {bytes} bytes; see edge-node report {run}");
        return Err((StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    let (mut steps, mut validated) = (Vec::new(), Vec::new());
    for line in recorded_lines(&folder).map_err(broken)? {
        match line {
            Line::Step(step) => steps.push(step),
            Line::Validation(validation) => validated.push(validation),
        }
    }
    Ok(json!({ "run": run, "steps": steps.len(), "rows": rows(&steps), "validations": validated }))
}
