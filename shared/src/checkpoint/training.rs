//! One node's half of a training run: how it is built at any step, and what is kept of it.
//!
//! Both nodes go through here, so that they agree on what a step is made of: the weights that the run
//! began with, adapters and sparsity as the training spec says, and the optimiser's state.

use std::{ops::Range, sync::Arc};

use super::{AdapterBase, CheckpointError, Library, LibraryError, WeightsId};
use crate::{
    codec::LeftOut,
    model::{
        BottleneckSpec, DECODER, ENCODER, LoadedWeights, LoraSpec, ModelError, SeededWeights,
        Segment, Side, StageState, Weights,
    },
    session::TrainingSpec,
    wire::NamedTensors,
};

/// Beside the files of stages, whose names have no dot, that of what was left out of gradients.
const LEFT_OUT: &str = "left.out";

/// What makes this node's half what it is.
#[derive(Clone)]
pub struct TrainingRun {
    pub library: Arc<Library>,
    /// Run id.
    pub id: String,
    /// What the run began with.
    pub start: WeightsId,
    pub training: TrainingSpec,
    pub side: Side,
    /// This node's stages.
    pub range: Range<usize>,
}

impl TrainingRun {
    /// The half after `step`, ready for the next one.
    pub fn restore(&self, step: u64) -> Result<Segment, LibraryError> {
        if let Some(bottleneck) = &self.training.bottleneck {
            return self.with_bottleneck(bottleneck, step);
        }
        let (spec, range) = (self.library.spec(), self.range.clone());
        let stages = &spec.stage_names()[range.clone()];
        let mut learned = NamedTensors::new();
        let mut optimizers = Vec::new();
        for stage in stages.iter().take(if step == 0 { 0 } else { stages.len() }) {
            let files = self.library.store().read(&self.id, step, stage)?;
            learned.extend(files.weights);
            optimizers.push((stage, files.optimizer));
        }
        let mut segment = match (&self.training.lora, step) {
            (Some(lora), _) => self.adapted(lora, step, stages, learned)?,
            (None, 0) => {
                let mut source = self.library.source(&self.start, stages)?;
                Segment::build(spec, range, source.as_mut(), true)?
            }
            (None, _) => Segment::build(spec, range, &mut LoadedWeights::new(learned), true)?,
        };
        if self.training.sparsity > 0.0 {
            segment.sparsify(self.training.sparsity);
        }
        for (stage, state) in optimizers {
            segment.load_optimizer(stage, &self.training.optimizer, state)?;
        }
        Ok(segment)
    }

    fn adapted(
        &self,
        lora: &LoraSpec,
        step: u64,
        stages: &[String],
        learned: NamedTensors,
    ) -> Result<Segment, LibraryError> {
        let here = lora.sides.include(self.side).then_some(lora);
        let mut base = self.library.source(&self.start, stages)?;
        let mut factors: Box<dyn Weights> = match step {
            0 => Box::new(SeededWeights(lora.seed)),
            _ => Box::new(LoadedWeights::new(learned)),
        };
        let (spec, range) = (self.library.spec(), self.range.clone());
        let (base, factors) = (base.as_mut(), factors.as_mut());
        Ok(Segment::build_adapted(spec, range, base, here, factors)?)
    }

    /// The model's half, which learns nothing, and this side's half of the bottleneck at the cut.
    fn with_bottleneck(
        &self,
        bottleneck: &BottleneckSpec,
        step: u64,
    ) -> Result<Segment, LibraryError> {
        let (spec, range) = (self.library.spec(), self.range.clone());
        let mut base = self.library.source(&self.start, &spec.stage_names()[range.clone()])?;
        let mut none = SeededWeights(bottleneck.seed);
        let mut segment =
            Segment::build_adapted(spec, range.clone(), base.as_mut(), None, &mut none)?;
        let plan = match self.side {
            Side::Edge => bottleneck.encoder(spec, range.end),
            Side::Cloud => bottleneck.decoder(spec, range.start),
        };
        let plan = plan.map_err(ModelError::Training)?;
        let (mut own, state): (Box<dyn Weights>, Vec<u8>) = match step {
            0 => (Box::new(none), Vec::new()),
            _ => {
                let files = self.library.store().read(&self.id, step, &plan.name)?;
                (Box::new(LoadedWeights::new(files.weights)), files.optimizer)
            }
        };
        segment.add(&plan, self.side == Side::Edge, own.as_mut())?;
        segment.load_optimizer(&plan.name, &self.training.optimizer, state)?;
        Ok(segment)
    }

    /// What this node had left out of the gradients that it sent up to `step`.
    pub fn left_out(&self, step: u64) -> Result<LeftOut, LibraryError> {
        let store = self.library.store();
        if step == 0 || !store.stages(&self.id, step)?.contains(LEFT_OUT) {
            return Ok(LeftOut::new());
        }
        Ok(store.read(&self.id, step, LEFT_OUT)?.weights)
    }

    /// Writes this half of `step`, and what it has left out of gradients.
    pub fn write(
        &self,
        step: u64,
        mut state: Vec<StageState>,
        left_out: LeftOut,
    ) -> Result<(), CheckpointError> {
        let store = self.library.store();
        if self.training.bottleneck.is_some() {
            // The rest is the model's, which stays as it is.
            state.retain(|s| [ENCODER, DECODER].contains(&s.stage.as_str()));
        }
        if !left_out.is_empty() {
            let (stage, optimizer) = (LEFT_OUT.into(), Vec::new());
            state.push(StageState { stage, weights: left_out, optimizer });
        }
        let state = &state;
        match &self.training.lora {
            None => store.write(&self.id, step, state),
            Some(lora) => {
                let base = AdapterBase { weights: self.start.to_string(), scale: lora.scale() };
                store.write_adapters(&self.id, step, state, base)
            }
        }
    }
}
