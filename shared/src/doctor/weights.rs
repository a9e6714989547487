//! Whether the weights are there, all of them, in the shapes that the model needs.

use super::Finding;
use crate::{
    checkpoint::{Library, WeightsId},
    model::Segment,
};

/// These weights, of these stages.
pub fn weights(library: &Library, id: &WeightsId, stages: std::ops::Range<usize>) -> Finding {
    const CHECK: &str = "weights";
    let what = match id {
        WeightsId::Seed(seed) => {
            return Finding::warning(
                CHECK,
                format!("random ones of seed {seed}: answers mean nothing"),
                "train (edge-node train), or name a safetensors file in weights.file",
            );
        }
        WeightsId::File(_) => "of weights.file".to_string(),
        WeightsId::Run { run, step } => format!("of run {run}, step {step}"),
    };
    let names = &library.spec().stage_names()[stages.clone()];
    let absent = match library.missing(id, names) {
        Ok(absent) => absent,
        Err(error) => return Finding::error(CHECK, error.to_string()),
    };
    if !absent.is_empty() {
        let absent = absent.join(", ");
        return Finding::ok(CHECK, format!("{what}; the other node has those of {absent}"));
    }
    let loaded = library.source(id, names).map_err(|e| e.to_string()).and_then(|mut source| {
        let made = Segment::build(library.spec(), stages, source.as_mut(), false);
        made.map(drop).map_err(|e| e.to_string())
    });
    match loaded {
        Ok(()) => Finding::ok(CHECK, format!("{what}, all {} stages", names.len())),
        Err(problem) => Finding::error(CHECK, format!("{what}: {problem}")),
    }
}
