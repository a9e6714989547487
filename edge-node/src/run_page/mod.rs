//! `edge-node report`: what a run was, as one page for people and as a trace for other tools.
//!
//! The page holds everything itself: curves ([`curves`], drawn by [`chart`]) and the timeline of one
//! step ([`lanes`]) as SVG, the values as tables, a style for light and for dark screens, and a small
//! script that shows values under the pointer. The same runs give the same page. [`trace`] writes the
//! recorded steps for Perfetto and chrome://tracing.

mod chart;
mod curves;
mod facts;
mod lanes;
#[cfg(test)]
mod tests;
mod trace;

use std::path::PathBuf;

use cleave_shared::{checkpoint::write_atomic, config::Config};
use minijinja::{Environment, Value, context, syntax::SyntaxConfig, value::Serde};
use serde::Serialize;

pub use self::curves::{Row, rows};
use self::{chart::Chart, curves::Table, facts::Fact, lanes::StepPicture};
use crate::train::{
    Line, RunRecord, StepSpans, Stepped, Validated, recorded_lines, recorded_steps,
};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub run: String,
    /// Where the page goes; `report.html` in the run's folder without it.
    pub output: Option<PathBuf>,
    /// Where a trace goes, if one is wanted.
    pub trace: Option<PathBuf>,
    /// Whose timeline is shown; without it the last recorded one, and all of them in the trace.
    pub step: Option<u64>,
}

/// What a run left on disk.
struct Run {
    id: String,
    record: RunRecord,
    steps: Vec<Stepped>,
    validated: Vec<Validated>,
    timeline: Vec<StepSpans>,
}

impl Run {
    fn read(config: &Config, id: &str) -> Result<(Self, PathBuf), String> {
        let runs = &config.runs.dir;
        let Some(record) = RunRecord::read(runs, id)? else {
            return Err(format!("run {id} is not in {}", runs.join("edge").display()));
        };
        let dir = runs.join("edge").join(id);
        let (mut steps, mut validated) = (Vec::new(), Vec::new());
        for line in recorded_lines(&dir)? {
            match line {
                Line::Step(step) => steps.push(step),
                Line::Validation(validation) => validated.push(validation),
            }
        }
        if steps.is_empty() {
            return Err(format!("run {id} has no steps in {}", dir.display()));
        }
        let timeline = recorded_steps(&dir)?;
        Ok((Self { id: id.into(), record, steps, validated, timeline }, dir))
    }

    /// The recorded step that is meant; none if the run has no timeline and none was asked for.
    fn recorded(&self, step: Option<u64>) -> Result<Option<&StepSpans>, String> {
        let Some(step) = step else { return Ok(self.timeline.last()) };
        if let Some(found) = self.timeline.iter().find(|s| s.step == step) {
            return Ok(Some(found));
        }
        let nearest = self.timeline.iter().min_by_key(|s| s.step.abs_diff(step));
        Err(match nearest {
            Some(nearest) => {
                format!("--step: step {step} was not recorded; the nearest is {}", nearest.step)
            }
            None => format!("--step: run {} has no timeline", self.id),
        })
    }
}

/// Writes page and trace; gives the files.
pub fn write(config: &Config, options: &Options) -> Result<Vec<PathBuf>, String> {
    let (run, dir) = Run::read(config, &options.run)?;
    let shown = run.recorded(options.step)?;
    let output = options.output.clone().unwrap_or_else(|| dir.join("report.html"));
    let mut files = vec![(output, page(&run, shown)?.into_bytes())];
    if let Some(path) = &options.trace {
        let steps = match (options.step, shown) {
            (Some(_), Some(shown)) => std::slice::from_ref(shown),
            _ => &run.timeline[..],
        };
        if steps.is_empty() {
            return Err(format!("--trace: run {} has no timeline", run.id));
        }
        files.push((path.clone(), trace::chrome_trace(steps)));
    }
    for (path, bytes) in &files {
        write_atomic(path, bytes).map_err(|e| e.to_string())?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// All that the template shows.
#[derive(Serialize)]
struct Page<'a> {
    run: &'a str,
    summary: String,
    facts: Vec<Fact>,
    charts: Vec<Chart>,
    /// The run's record, as it is on disk.
    record: String,
    step: Option<StepPicture>,
    values: Table,
    validations: Table,
    version: &'static str,
}

fn page(run: &Run, shown: Option<&StepSpans>) -> Result<String, String> {
    let rows = curves::rows(&run.steps);
    let page = Page {
        run: &run.id,
        summary: facts::summary(run),
        facts: facts::facts(run),
        charts: curves::charts(&rows, &run.validated),
        record: serde_json::to_string_pretty(&run.record).map_err(|e| e.to_string())?,
        step: shown.map(lanes::picture),
        values: curves::values(&rows),
        validations: curves::validations(&run.validated),
        version: env!("CARGO_PKG_VERSION"),
    };
    let page = context! { page => Serde(page), style => STYLE, script => SCRIPT };
    render(page).map_err(|e| format!("page.html: {e}"))
}

fn render(page: Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    let blocks = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(blocks);
    // The name's ending has everything escaped for HTML.
    environment.add_template("page.html", TEMPLATE)?;
    environment.get_template("page.html")?.render(page)
}
