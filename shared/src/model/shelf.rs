//! Stages that are in memory, so that a segment with another cut loads only the layers that move.
//!
//! A shelf owns nothing: a stage is on it as long as some segment has it.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use burn::tensor::Device;

use super::{BufferUpdates, ModelError, ModelSpec, Segment, Stage, WeightFormat, Weights};

/// Stages of one model in one format, by weights and place.
pub struct StageShelf {
    spec: ModelSpec,
    format: WeightFormat,
    known: Mutex<HashMap<(String, usize), Weak<dyn Stage>>>,
}

impl StageShelf {
    pub fn new(spec: ModelSpec, format: WeightFormat) -> Self {
        Self { spec, format, known: Mutex::default() }
    }

    /// Takes what is in memory of stages `range` of these weights.
    pub fn take(&self, weights: &str, range: Range<usize>) -> Result<Partial<'_>, ModelError> {
        self.spec.check_split(range.end)?;
        let found = range.clone().map(|place| self.find(weights, place)).collect();
        Ok(Partial { shelf: self, weights: weights.into(), first: range.start, found })
    }

    /// Forgets all weights whose id begins so: they are not what they were.
    pub fn forget(&self, prefix: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(weights, _), _| !weights.starts_with(prefix));
    }

    fn find(&self, weights: &str, place: usize) -> Option<Arc<dyn Stage>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(weights.to_string(), place))?.upgrade()
    }

    fn put(&self, weights: &str, place: usize, stage: &Arc<dyn Stage>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, stage| stage.strong_count() > 0);
        known.insert((weights.into(), place), Arc::downgrade(stage));
    }
}

/// A segment of which some stages are not loaded.
pub struct Partial<'a> {
    shelf: &'a StageShelf,
    weights: String,
    first: usize,
    found: Vec<Option<Arc<dyn Stage>>>,
}

impl Partial<'_> {
    /// Names of the stages that have to be loaded: the layers that move.
    pub fn missing(&self) -> Vec<String> {
        let names = self.shelf.spec.stage_names();
        let absent = self.found.iter().enumerate().filter(|(_, stage)| stage.is_none());
        absent.map(|(i, _)| names[self.first + i].clone()).collect()
    }

    /// Loads them, for inference.
    pub fn load(self, source: &mut dyn Weights) -> Result<Segment, ModelError> {
        let Self { shelf, weights, first, found } = self;
        let device = Device::flex();
        let plans = shelf.spec.stages();
        let stage = |(i, found): (usize, Option<Arc<dyn Stage>>)| {
            if let Some(stage) = found {
                return Ok(stage);
            }
            let mut stage = plans[first + i].build(source, &device)?;
            if shelf.format != WeightFormat::Full {
                stage.quantize(shelf.format, &|name| shelf.spec.is_input_major(name));
            }
            let stage: Arc<dyn Stage> = Arc::from(stage);
            shelf.put(&weights, first + i, &stage);
            Ok(stage)
        };
        let stages = found.into_iter().enumerate().map(stage);
        let stages = stages.collect::<Result<_, ModelError>>()?;
        Ok(Segment { stages, device, buffers: BufferUpdates::default() })
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::{
        model::{ParamSpec, SeededWeights},
        profile::sample_input,
    };

    /// Counts what is asked for.
    struct Counted(usize);

    impl Weights for Counted {
        fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
            self.0 += 1;
            SeededWeights(7).data(param)
        }

        fn buffer(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
            SeededWeights(7).buffer(param)
        }
    }

    #[test]
    fn only_layers_that_move_are_loaded() {
        let spec = ModelSpec::builtin("lenet").unwrap();
        let shelf = StageShelf::new(spec.clone(), WeightFormat::Full);
        let mut source = Counted(0);
        let missing = |id: &str| shelf.take(id, 0..6).unwrap().missing();
        let first = shelf.take("seed:7", 0..4).unwrap().load(&mut source).unwrap();
        assert_eq!((source.0, missing("seed:7")), (4, vec!["fc1".to_string(), "fc2".into()]));
        let deeper = shelf.take("seed:7", 0..5).unwrap().load(&mut source).unwrap();
        assert_eq!(source.0, 6);
        drop(first);
        // Still in the deeper one; other weights are others.
        assert_eq!((missing("seed:7").len(), missing("seed:8").len()), (1, 6));
        let input = sample_input(&spec, 1, 1);
        let alone = Segment::build(&spec, 0..5, &mut SeededWeights(7), false).unwrap();
        assert_eq!(deeper.infer(&input).unwrap(), alone.infer(&input).unwrap());
        shelf.forget("seed:7");
        assert_eq!(missing("seed:7").len(), 6);
        let again = shelf.take("seed:7", 1..2).unwrap().load(&mut source).unwrap();
        assert_eq!(missing("seed:7").len(), 5);
        drop((deeper, again));
        assert_eq!(missing("seed:7").len(), 6);
    }
}
