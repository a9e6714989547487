//! Split training, seen from the edge.
//!
//! ```text
//!   edge                                     cloud
//!   head forward ── activation, labels ───▶  tail forward, loss
//!   head backward ◀── cut-layer gradient ──  tail backward
//!   commit ───────── commit ──────────────▶  commit
//! ```
//!
//! [`Trainer`] is the run: it opens a [`conversation`] with the cloud, takes steps, validates after
//! each epoch, writes checkpoints, and after a broken connection opens another conversation and
//! goes on from the newest state that both sides hold. [`head`] is this side's half of the model,
//! [`run_dir`] its folder, [`progress`] what the user sees, [`timeline`] when each part of a step ran,
//! [`interruption`] how it ends early.
//! [`pipeline`] takes one step through both halves, in micro-batches. Which samples make up step `n` is a
//! function of `n` alone, so a step that is taken again is the same step.

mod conversation;
mod depth;
mod head;
mod interruption;
mod metrics;
mod micro_batch;
mod patience;
mod pipeline;
mod progress;
mod run_dir;
mod score;
mod tensorboard;
mod timeline;
mod trainer;

use cleave_shared::{config::Config, data::Part, link::Link, shutdown::Ending};

pub(crate) use self::{
    conversation::{ConversationError, sort as sort_status},
    patience::Patience,
    run_dir::RunDir,
    trainer::{Trainer, VALIDATION_BATCH},
};
pub use self::{
    metrics::{Line, Stepped, Validated, recorded_lines},
    run_dir::{PreparedData, RunRecord, data_folder, new_run_id, newest_run},
    score::{Score, Tally},
    timeline::{Lane, Resource, Span, StepSpans, Timeline, TimelineClock, overlap, recorded_steps},
    trainer::Outcome,
};
use crate::{bottleneck::refuse_in_training, deploy::Pointer, group, stack};

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run id; a new one is made up without it.
    pub run: Option<String>,
    /// Continue the run (the newest one without an id) instead of starting it.
    pub resume: bool,
    /// Leave what is deployed as it is.
    pub no_deploy: bool,
    /// The run whose prepared data this one learns from; its own, if it has any, without it.
    pub data_of: Option<String>,
    /// Which edge of a group this process is; all of them without it.
    pub edge: Option<usize>,
}

/// What an observer says to a validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    GoOn,
    /// End the run here, with a checkpoint.
    Stop,
}

/// Sees every validation of a run, those before it was resumed first. A run with an observer is quiet.
pub type Observer = Box<dyn FnMut(&Validated) -> Verdict + Send>;

/// Trains, and deploys the result; the error is one line.
pub async fn train(config: &Config, options: &Options) -> Result<Outcome, String> {
    train_observed(config, options, None).await
}

/// [`train`], which SIGTERM and SIGINT end with a checkpoint, and with nothing deployed.
pub async fn train_until_asked(config: &Config, options: &Options) -> Result<Outcome, String> {
    run(config, options, None, Ending::listen()).await
}

/// [`train`], seen by `observer`.
pub async fn train_observed(
    config: &Config,
    options: &Options,
    observer: Option<Observer>,
) -> Result<Outcome, String> {
    run(config, options, observer, Ending::never()).await
}

async fn run(
    config: &Config,
    options: &Options,
    observer: Option<Observer>,
    ending: Ending,
) -> Result<Outcome, String> {
    refuse_in_training(config)?;
    let id = RunDir::choose(config, options)?;
    let prepared = PreparedData::find(config, options.data_of.as_ref().unwrap_or(&id))?;
    let record = RunRecord::new(config, prepared);
    let feed = record.feed(config)?;
    let split = feed.dataset().split(config.seed);
    if split.indices(Part::Train).is_empty() {
        return Err(format!("data: {} samples are too few to train on", feed.dataset().len()));
    }
    if config.train.topology.kind.is_group() {
        if observer.is_some() {
            return Err("tune: set train.topology.kind = \"vanilla\"".into());
        }
        let dir = RunDir::join(config, &record, id)?;
        let outcome = tokio::select! {
            outcome = group::train(config, options, feed, &dir) => outcome?,
            // A turn is the group's to give again, and a round is kept by the cloud.
            () = ending.asked() => {
                let run = &dir.id;
                return Err(format!("interrupted; join the group again with train --run {run}"));
            }
        };
        return deploy(config, options, outcome);
    }
    if options.edge.is_some() {
        return Err("--edge is for a train.topology.kind of several edges".into());
    }
    let dir = RunDir::open(config, &record, id, options.resume)?;
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = stack::client(config, &link)?;
    let trainer = Trainer::new(config, feed, &split, dir, client, link, observer)?;
    let outcome = trainer.until(ending).run().await?;
    deploy(config, options, outcome)
}

fn deploy(config: &Config, options: &Options, outcome: Outcome) -> Result<Outcome, String> {
    if !options.no_deploy {
        let spec_hash = config.model.hash();
        let pointer = Pointer { run: outcome.run.clone(), step: outcome.steps, spec_hash };
        pointer.write(&config.runs.dir).map_err(|e| e.to_string())?;
    }
    Ok(outcome)
}
