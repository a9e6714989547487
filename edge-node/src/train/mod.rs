//! Split training, seen from the edge.
//!
//! ```text
//!   edge                                     cloud
//!   head forward ── activation, labels ───▶  tail forward, loss
//!   head backward ◀── cut-layer gradient ──  tail backward, step
//!   step
//! ```
//!
//! [`Trainer`] is the run: it opens a [`conversation`] with the cloud, takes steps, validates after
//! each epoch, writes checkpoints, and after a broken connection opens another conversation and
//! goes on from the newest state that both sides hold. [`head`] is this side's half of the model,
//! [`run_dir`] its folder, [`progress`] what the user sees. Which samples make up step `n` is a
//! function of `n` alone, so a step that is taken again is the same step.

mod conversation;
mod head;
mod metrics;
mod progress;
mod run_dir;
mod trainer;

use cleave_shared::{
    config::Config,
    data::{Dataset, Part, Split},
    link::Link,
};

pub use self::trainer::Outcome;
use self::{
    conversation::ConversationError,
    run_dir::{RunDir, RunRecord},
    trainer::Trainer,
};
use crate::{cloud::CloudClient, deploy::Pointer, stack};

/// What the command line adds to the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Run id; a new one is made up without it.
    pub run: Option<String>,
    /// Continue the run (the newest one without an id) instead of starting it.
    pub resume: bool,
    /// Leave what is deployed as it is.
    pub no_deploy: bool,
}

/// Trains, and deploys the result; the error is one line.
pub async fn train(config: &Config, options: &Options) -> Result<Outcome, String> {
    let dataset = config.data.open().map_err(|e| e.to_string())?;
    check_fit(config, dataset.as_ref())?;
    let split = Split::new(dataset.len(), config.seed);
    if split.indices(Part::Train).is_empty() {
        return Err(format!("data: {} samples are too few to train on", dataset.len()));
    }
    let record = RunRecord::new(config);
    let dir = RunDir::open(config, &record, options)?;
    let link = Link::new(config.link_profile(), config.link.seed);
    let client = CloudClient::new(stack::channel(config, &link)?, &config.edge.cloud);
    let mut trainer = Trainer::new(config, dataset, &split, dir, client, link)?;
    let outcome = trainer.run().await?;
    if !options.no_deploy {
        let spec_hash = config.model.hash();
        let pointer = Pointer { run: outcome.run.clone(), step: outcome.steps, spec_hash };
        pointer.write(&config.runs.dir).map_err(|e| e.to_string())?;
    }
    Ok(outcome)
}

/// Whether the model can read these samples.
fn check_fit(config: &Config, dataset: &dyn Dataset) -> Result<(), String> {
    let (sample, input) = (dataset.sample_shape().to_vec(), config.model.input_shape());
    if sample != input {
        let name = dataset.name();
        return Err(format!("model.input is {input:?}, but a sample of {name} is {sample:?}"));
    }
    let (classes, outputs) = (dataset.classes(), config.model.output_shape()[0]);
    if classes > outputs {
        return Err(format!("model.classes is {outputs}, but the data has {classes} classes"));
    }
    Ok(())
}
