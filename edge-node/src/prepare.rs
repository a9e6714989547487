//! The first of the five steps: collects the configured data, cleans, normalises and splits them, into
//! the folder of a run.

use std::fmt::Write;

use cleave_shared::{
    checkpoint::check_run_id,
    config::Config,
    data::{self, Manifest, Target},
};

use crate::{
    bar::{follow, waiting},
    train::{RunRecord, data_folder, new_run_id},
};

/// What was prepared, and where.
pub struct Prepared {
    pub run: String,
    pub manifest: Manifest,
}

/// Prepares the data of `run`, a new one without a name; the error is one line.
pub fn prepare(config: &Config, run: Option<String>) -> Result<Prepared, String> {
    let run = run.unwrap_or_else(|| new_run_id(config));
    check_run_id(&run).map_err(|e| format!("--run: {e}"))?;
    if RunRecord::read(&config.runs.dir, &run)?.is_some() {
        return Err(format!("--run: {run} was trained already; prepare the data of another run"));
    }
    let folder = data_folder(&config.runs.dir, &run);
    let shown = waiting("reading the data", false);
    let told = |step| follow(&shown, step);
    let normalise = config.prepare.normalise;
    let manifest = data::prepare(&config.data, config.seed, normalise, &folder, &told);
    let manifest = manifest.map_err(|e| e.to_string())?;
    Ok(Prepared { run, manifest })
}

impl Prepared {
    /// What was found and done, for a terminal.
    pub fn render(&self) -> String {
        let Manifest { name, collected, dropped, parts, target, normalisation, .. } =
            &self.manifest;
        let mut text = format!("{}: {collected} samples of {name}", self.run);
        let target = match target {
            Target::Classes { names } => format!("{} classes", names.len()),
            Target::Tokens { length, vocabulary } => {
                format!("windows of {length} tokens out of {vocabulary}")
            }
            Target::Values { names } => names.join(", "),
        };
        let _ = writeln!(text, ", to learn: {target}");
        for (reason, rows, place) in dropped.reasons() {
            let _ = writeln!(text, "  {rows:>7} left out: {reason} (first: {place})");
        }
        for name in ["train", "validation", "test"] {
            let samples = parts.get(name).map_or(0, |p| p.samples);
            let _ = writeln!(text, "  {samples:>7} for {name}");
        }
        for n in normalisation {
            let _ = writeln!(text, "  {} normalised, {} means", n.input, n.mean.len());
        }
        text
    }

    /// The manifest as JSON, with the run's id.
    pub fn json(&self) -> String {
        let mut value = serde_json::to_value(&self.manifest).expect("plain data");
        value["run"] = self.run.clone().into();
        value.to_string()
    }
}
