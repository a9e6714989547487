//! A half on its way between nodes: weights and optimiser state of its stages as a message, and a
//! segment made of what came.

use std::ops::Range;

use crate::{
    codec::F32,
    model::{LoadedWeights, ModelError, ModelSpec, OptimizerSpec, Segment, StageState},
    tensor::{DType, HostTensor},
    wire::{self, NamedTensors, WireError, v1},
};

/// The half as a message; with the optimiser's state, or without.
pub fn pack(states: &[StageState], optimizer: bool) -> v1::Head {
    let bytes = |s: &StageState| {
        let data = s.optimizer.clone();
        let tensor = HostTensor::new(DType::U8, vec![data.len()], data.into());
        (s.stage.clone(), tensor.expect("as many bytes as it has"))
    };
    let kept = states.iter().filter(|s| optimizer && !s.optimizer.is_empty());
    v1::Head {
        weights: wire::encode(named_weights(states), &F32),
        optimizer: wire::encode(kept.map(bytes).collect(), &F32),
    }
}

/// The stages of a message, those of `stages` in that order. Tensors of other stages are dropped; what is
/// missing is noticed when a segment is built of it.
pub fn unpack(head: v1::Head, stages: &[String]) -> Result<Vec<StageState>, WireError> {
    let weights = wire::decode(head.weights, &F32)?;
    let mut optimizers = wire::decode(head.optimizer, &F32)?;
    let mut states = with_weights(stages, weights);
    for state in &mut states {
        if let Some(i) = optimizers.iter().position(|(name, _)| *name == state.stage) {
            state.optimizer = optimizers.swap_remove(i).1.into_data().to_vec();
        }
    }
    Ok(states)
}

/// All weights, named `<stage>/<parameter>`.
pub fn named_weights(states: &[StageState]) -> NamedTensors {
    let of = |s: &StageState| {
        let stage = s.stage.clone();
        let named = s.weights.iter().map(move |(n, t)| (format!("{stage}/{n}"), t.clone()));
        named.collect::<Vec<_>>()
    };
    states.iter().flat_map(of).collect()
}

/// Stages with weights named as [`named_weights`] does, and no optimiser state.
pub fn with_weights(stages: &[String], weights: NamedTensors) -> Vec<StageState> {
    let mut by_stage = super::store::by_stage(stages, weights);
    let state = |stage: &String| StageState {
        stage: stage.clone(),
        weights: by_stage.remove(stage).unwrap_or_default(),
        optimizer: Vec::new(),
    };
    stages.iter().map(state).collect()
}

/// A segment that goes on from these states.
pub fn build_half(
    spec: &ModelSpec,
    range: Range<usize>,
    states: &[StageState],
    optimizer: &OptimizerSpec,
) -> Result<Segment, ModelError> {
    let weights = states.iter().flat_map(|s| s.weights.clone()).collect();
    let mut segment = Segment::build(spec, range, &mut LoadedWeights::new(weights), true)?;
    for state in states {
        segment.load_optimizer(&state.stage, optimizer, state.optimizer.clone())?;
    }
    Ok(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::SeededWeights;

    #[test]
    fn a_half_that_travelled_is_the_same_half() {
        let Config { model, train, .. } = Config::default();
        let head = Segment::build(&model, 0..4, &mut SeededWeights(3), true).unwrap();
        let mut states = head.state().unwrap();
        states[0].optimizer = vec![1, 2, 3];
        let stages = head.stage_names();
        let back = unpack(pack(&states, true), &stages).unwrap();
        let flat = |states: &[StageState]| named_weights(states);
        assert_eq!(flat(&back), flat(&states));
        assert_eq!(back[0].optimizer, [1, 2, 3]);
        assert!(unpack(pack(&states, false), &stages).unwrap()[0].optimizer.is_empty());
        states[0].optimizer.clear();
        let again = build_half(&model, 0..4, &states, &train.optimizer).unwrap();
        assert_eq!(again.weights(), head.weights());
        let error = build_half(&model, 0..4, &states[..1], &train.optimizer);
        assert!(error.is_err(), "stages are missing");
    }
}
