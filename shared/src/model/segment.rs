//! A contiguous range of stages: the head, the tail, or the whole model. How it is built and run; how
//! it learns is in [`super::training`].

use std::{ops::Range, sync::Arc};

use burn::tensor::Device;

use super::{
    Activation, BufferUpdates, LoraSpec, Mode, ModelError, ModelSpec, OptimizerSpec, Pass, Stage,
    StageCache, StagePlan, WeightFormat, Weights,
};
use crate::wire::NamedTensors;

/// Stages `range` of a model, on one device.
pub struct Segment {
    /// Those of a segment that learns are nobody else's.
    pub(super) stages: Vec<Arc<dyn Stage>>,
    pub(super) device: Device,
    /// What the forward passes of a step that is not committed do to buffers.
    pub(super) buffers: BufferUpdates,
}

/// What a segment keeps while it generates one sequence step by step.
#[derive(Debug, Clone, Default)]
pub struct SegmentCache {
    stages: Vec<StageCache>,
}

impl SegmentCache {
    /// Bytes of all tensors kept.
    pub fn bytes(&self) -> usize {
        self.stages.iter().map(StageCache::bytes).sum()
    }
}

impl Segment {
    /// Builds only the stages of `range`; `train` puts them on an autodiff device.
    pub fn build(
        spec: &ModelSpec,
        range: Range<usize>,
        weights: &mut dyn Weights,
        train: bool,
    ) -> Result<Self, ModelError> {
        spec.check_split(range.end)?;
        if train {
            spec.check_training()?;
        }
        let device = if train { Device::flex().autodiff() } else { Device::flex() };
        Self::build_on(device, spec, range, weights)
    }

    fn build_on(
        device: Device,
        spec: &ModelSpec,
        range: Range<usize>,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        let plans = spec.stages();
        let stages = plans[range].iter().map(|p| p.build(weights, &device).map(Arc::from));
        let (stages, buffers) = (stages.collect::<Result<_, _>>()?, BufferUpdates::default());
        Ok(Self { stages, device, buffers })
    }

    /// Builds stages of `range` to train adapters of them; see [`Segment::adapt`]. A model whose
    /// weights cannot be trained, as those of a decoder with tied tables, can still be adapted.
    pub fn build_adapted(
        spec: &ModelSpec,
        range: Range<usize>,
        weights: &mut dyn Weights,
        lora: Option<&LoraSpec>,
        factors: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        spec.check_split(range.end)?;
        let mut segment = Self::build_on(Device::flex().autodiff(), spec, range, weights)?;
        segment.adapt(spec, lora, factors)?;
        Ok(segment)
    }

    /// Builds stages of `range` for inference, with their weight matrices in this format; at no time
    /// are there more than one stage's matrices as floats.
    pub fn build_in(
        format: WeightFormat,
        spec: &ModelSpec,
        range: Range<usize>,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        spec.check_split(range.end)?;
        let device = Device::flex();
        let plans = spec.stages();
        let build = |plan: &super::StagePlan| {
            let mut stage = plan.build(weights, &device)?;
            if format != WeightFormat::Full {
                stage.quantize(format, &|name| spec.is_input_major(name));
            }
            Ok(Arc::from(stage))
        };
        let stages = plans[range].iter().map(build).collect::<Result<_, ModelError>>()?;
        Ok(Self { stages, device, buffers: BufferUpdates::default() })
    }

    /// Freezes all stages; those layers that are targets of `lora` learn by adapters, whose factors
    /// are from `factors`. Without `lora` nothing here learns.
    pub fn adapt(
        &mut self,
        spec: &ModelSpec,
        lora: Option<&LoraSpec>,
        factors: &mut dyn Weights,
    ) -> Result<(), ModelError> {
        let is_input_major = |name: &str| spec.is_input_major(name);
        let device = &self.device;
        let mut stages = own(&mut self.stages);
        stages.try_for_each(|stage| stage.adapt(lora, factors, &is_input_major, device))
    }

    /// Adds a stage behind all others, or before them.
    pub fn add(
        &mut self,
        plan: &StagePlan,
        behind: bool,
        weights: &mut dyn Weights,
    ) -> Result<(), ModelError> {
        let stage = plan.build(weights, &self.device)?;
        let place = if behind { self.stages.len() } else { 0 };
        self.stages.insert(place, Arc::from(stage));
        Ok(())
    }

    /// Inference of one stage alone.
    pub fn of_stage(plan: &StagePlan, weights: &mut dyn Weights) -> Result<Self, ModelError> {
        let (stages, device) = (Vec::new(), Device::flex());
        let mut segment = Self { stages, device, buffers: BufferUpdates::default() };
        segment.add(plan, true, weights)?;
        Ok(segment)
    }

    /// Sets this share of each weight matrix, the smallest, to zero; training keeps it there.
    pub fn sparsify(&mut self, amount: f64) {
        own(&mut self.stages).for_each(|stage| stage.sparsify(amount));
    }

    /// Bytes that the weights take in memory.
    pub fn weight_bytes(&self) -> usize {
        self.stages.iter().map(|s| s.weight_bytes()).sum()
    }

    pub fn stage_names(&self) -> Vec<String> {
        self.stages.iter().map(|s| s.name().to_string()).collect()
    }

    /// All parameters and buffers by name.
    pub fn weights(&self) -> NamedTensors {
        self.stages.iter().flat_map(|s| s.weights()).collect()
    }

    /// Whether a backward pass would have anything to update.
    pub fn has_parameters(&self) -> bool {
        self.stages.iter().any(|s| s.trains())
    }

    /// Inference on host tensors.
    pub fn infer(&self, input: &NamedTensors) -> Result<NamedTensors, ModelError> {
        let input = Activation::from_host(input, &self.device)?;
        Ok(self.run(input, Mode::Eval, &mut BufferUpdates::default())?.into_host())
    }

    /// The same; `observe` is told when a stage is done, by its place in this segment, and sees its output.
    pub fn infer_observed(
        &self,
        input: &NamedTensors,
        mut observe: impl FnMut(usize, &Activation) -> Result<(), ModelError>,
    ) -> Result<NamedTensors, ModelError> {
        let mut x = Activation::from_host(input, &self.device)?;
        for (place, stage) in self.stages.iter().enumerate() {
            x = infer_one(stage.as_ref(), x)?;
            observe(place, &x)?;
        }
        Ok(x.into_host())
    }

    pub(super) fn run(
        &self,
        input: Activation,
        mode: Mode,
        updates: &mut BufferUpdates,
    ) -> Result<Activation, ModelError> {
        self.stages.iter().try_fold(input, |x, stage| {
            stage.forward(x, &mut Pass { stage: stage.name(), mode, cache: None, updates })
        })
    }

    /// The next positions of a sequence; what came before is in `cache`, which is new for a new one.
    /// After an error the cache is of no more use: some stages may have taken the positions in.
    pub fn infer_next(
        &self,
        input: &NamedTensors,
        cache: &mut SegmentCache,
    ) -> Result<NamedTensors, ModelError> {
        let mut x = Activation::from_host(input, &self.device)?;
        cache.stages.resize_with(self.stages.len(), StageCache::default);
        let mut updates = BufferUpdates::default();
        for (stage, cache) in self.stages.iter().zip(&mut cache.stages) {
            let (mode, updates) = (Mode::Eval, &mut updates);
            let mut pass = Pass { stage: stage.name(), mode, cache: Some(cache), updates };
            x = stage.forward(x, &mut pass)?;
        }
        Ok(x.into_host())
    }

    /// What was learned and the optimiser state of each stage, for a checkpoint.
    pub fn state(&self) -> Result<Vec<StageState>, ModelError> {
        let state = |s: &dyn Stage| {
            Ok(StageState {
                stage: s.name().into(),
                weights: s.learned(),
                optimizer: s.optimizer_state()?,
            })
        };
        self.stages.iter().map(|s| state(s.as_ref())).collect()
    }

    /// Restores optimiser state of the stage with this name.
    pub fn load_optimizer(
        &mut self,
        stage: &str,
        optimizer: &OptimizerSpec,
        state: Vec<u8>,
    ) -> Result<(), ModelError> {
        match own(&mut self.stages).find(|s| s.name() == stage) {
            Some(s) => s.load_optimizer_state(optimizer, state),
            None => Err(ModelError::Optimizer {
                stage: stage.into(),
                problem: "is not in this segment".into(),
            }),
        }
    }
}

/// Inference of one stage.
pub(super) fn infer_one(stage: &dyn Stage, x: Activation) -> Result<Activation, ModelError> {
    let updates = &mut BufferUpdates::default();
    stage.forward(x, &mut Pass { stage: stage.name(), mode: Mode::Eval, cache: None, updates })
}

/// The stages of a segment that learns.
pub(super) fn own(
    stages: &mut [Arc<dyn Stage>],
) -> impl Iterator<Item = &mut (dyn Stage + 'static)> {
    stages.iter_mut().map(|s| Arc::get_mut(s).expect("a stage that learns is not shared"))
}

/// One stage as it is written to disk.
#[derive(Debug, Clone)]
pub struct StageState {
    pub stage: String,
    pub weights: NamedTensors,
    pub optimizer: Vec<u8>,
}
