//! The configured model with the weights that it starts from, which both nodes serve until
//! something is trained.

use std::{ops::Range, sync::Arc};

use cleave_shared::{
    checkpoint::{Library, WeightsId},
    config::Config,
    model::Segment,
};

/// Where its segments come from.
pub struct StartingModel<'a> {
    config: &'a Config,
    library: Library,
    weights: WeightsId,
}

impl<'a> StartingModel<'a> {
    /// Opens the weight files, if there are any; else the weights are those of the seed.
    pub fn open(config: &'a Config) -> Result<Self, String> {
        let library = config.library(Arc::new(config.runs.open("edge")?))?;
        let weights = library.initial(config.seed);
        Ok(Self { config, library, weights })
    }

    pub fn weights(&self) -> &WeightsId {
        &self.weights
    }

    /// Stages of it, to run.
    pub fn segment(&self, range: Range<usize>) -> Result<Segment, String> {
        let Self { config, library, weights } = self;
        let stages = &config.model.stage_names()[range.clone()];
        let mut source = library.source(weights, stages).map_err(|e| e.to_string())?;
        let format = config.quantize.weights;
        let segment = Segment::build_in(format, &config.model, range, source.as_mut());
        segment.map_err(|e| format!("{weights}: {e}"))
    }

    /// All of them.
    pub fn whole(&self) -> Result<Segment, String> {
        self.segment(0..self.config.model.stage_count())
    }
}
