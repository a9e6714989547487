//! The codec of a deployment's activations: by name, or the encoder of a bottleneck.

use std::sync::Arc;

use cleave_shared::{
    codec::{self, Learned, LearnedName, Place, SharedCodec},
    config::Config,
};

use crate::{deploy::Target, train::RunRecord};

/// What a target is to be served with. A bottleneck of another split point or of other weights is refused.
pub fn activation_codec(config: &Config, target: &Target) -> Result<SharedCodec, String> {
    if !LearnedName::is_meant(&target.codec) {
        return codec::by_name(&target.codec).map_err(|e| e.to_string());
    }
    let name: LearnedName = target.codec.parse()?;
    let (run, runs) = (&name.run, &config.runs.dir);
    let record = RunRecord::read(runs, run)?;
    let learned = record.and_then(|record| Some((record.training.bottleneck.clone()?, record)));
    let (spec, record) = learned.ok_or_else(|| {
        format!(
            "{run} is no bottleneck of {}: edge-node bottleneck train makes one",
            runs.join("edge").display()
        )
    })?;
    let (base, weights) = (record.start.unwrap_or_default(), target.weights.to_string());
    let (made_for, split) = (record.split_point, target.split);
    if made_for != split || base != weights || record.model != config.model {
        return Err(format!(
            "bottleneck {run} is for split point {made_for} of {base}, not for split point {split} of \
             {weights}: edge-node bottleneck train makes one"
        ));
    }
    let store = config.runs.open("edge")?;
    let newest = || store.steps(run).last().copied();
    let step = name.step.or_else(newest);
    let step = step.ok_or_else(|| format!("bottleneck {run} has no checkpoint yet"))?;
    let place = Place { store: &store, model: &config.model, split, name: &name, step };
    Ok(Arc::new(Learned::encoder(&spec, &place)?))
}

/// A bottleneck is made for weights that are done.
pub fn refuse_in_training(config: &Config) -> Result<(), String> {
    let name = &config.codec.activation;
    match LearnedName::is_meant(name) {
        false => Ok(()),
        true => Err(format!(
            "codec.activation: {name:?} belongs to weights that do not change: train with another codec"
        )),
    }
}
