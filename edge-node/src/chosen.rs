//! Which weights a command is about, and their data: a run's, or what is deployed, or what the
//! configuration starts from.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::{Library, RunStore, WeightsId},
    config::Config,
    data::Feed,
};

use crate::{
    deploy::Pointer,
    train::{PreparedData, RunRecord},
};

/// Weights, and the configuration that they were trained with, if they were.
pub struct Chosen {
    pub config: Config,
    pub weights: WeightsId,
    pub library: Library,
    record: Option<RunRecord>,
}

impl Chosen {
    /// The newest weights of this run; without one what is deployed, or else what the configuration
    /// starts from.
    pub fn open(config: &Config, run: Option<&str>) -> Result<Self, String> {
        let runs = &config.runs.dir;
        let deployed = Pointer::read(runs).map_err(|e| e.to_string())?;
        let deployed = deployed.filter(|pointer| pointer.spec_hash == config.model.hash());
        let named = run.is_some();
        let run = run.map(String::from).or_else(|| Some(deployed?.run));
        let record = run.as_deref().map(|run| RunRecord::read(runs, run)).transpose()?.flatten();
        if let (true, Some(run), None) = (named, &run, &record) {
            return Err(format!("--run: {run} was not trained in {}", runs.display()));
        }
        if let (Some(run), Some(record)) = (&run, &record) {
            record.check_model(run)?;
        }
        let own = record.as_ref().map_or_else(|| config.clone(), |record| record.configure(config));
        let store = Arc::new(config.runs.open("edge")?);
        let weights = run.map(|run| newest(&store, &run)).transpose()?;
        let library = own.library(store)?;
        let weights = weights.unwrap_or_else(|| library.initial(own.seed));
        Ok(Self { config: own, weights, library, record })
    }

    /// Which prepared data they are, if they were prepared.
    pub fn prepared(&self) -> Option<PreparedData> {
        self.record.as_ref()?.prepared.clone()
    }

    /// The data that the weights were trained on, or those of the configuration.
    pub fn feed(&self) -> Result<Feed, String> {
        if let Some(record) = &self.record {
            return record.feed(&self.config);
        }
        let dataset = self.config.data.open().map_err(|e| e.to_string())?;
        let feed = Feed::new(&self.config.model, self.config.train.loss, dataset);
        feed.map_err(|e| format!("data: {e}"))
    }
}

fn newest(store: &RunStore, run: &str) -> Result<WeightsId, String> {
    let step = store.steps(run).last().copied();
    let step = step.ok_or_else(|| format!("--run: {run} has no checkpoint yet"))?;
    Ok(WeightsId::Run { run: run.into(), step })
}
