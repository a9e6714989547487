//! What codecs do with what really crosses each cut.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Spread;
use crate::{
    codec::{Codec, SharedCodec},
    model::{ModelError, Segment},
    progress::{Progress, Steps},
    wire::{self, NamedTensors, v1},
};

/// One codec at one cut, for one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodecTime {
    pub codec: String,
    /// All tensors together; integers cross as they are.
    pub bytes: u64,
    pub encode: Spread,
    pub decode: Spread,
}

/// Measures each codec on the input of each stage.
pub(super) fn measure(
    model: &Segment,
    input: &NamedTensors,
    codecs: &[SharedCodec],
    rounds: usize,
    progress: Progress<'_>,
) -> Result<Vec<Vec<CodecTime>>, ModelError> {
    let last = model.stage_names().len().saturating_sub(1);
    let steps = Steps::new("measuring codecs", (last + 1) * codecs.len(), progress);
    let mut cuts = vec![through_all(input, codecs, rounds, &steps)?];
    model.infer_observed(input, |stage, output| {
        if stage < last {
            cuts.push(through_all(&output.clone().into_host(), codecs, rounds, &steps)?);
        }
        Ok(())
    })?;
    Ok(cuts)
}

fn through_all(
    tensors: &NamedTensors,
    codecs: &[SharedCodec],
    rounds: usize,
    steps: &Steps<'_>,
) -> Result<Vec<CodecTime>, ModelError> {
    let one = |codec: &SharedCodec| {
        let time = through(tensors, codec.as_ref(), rounds);
        steps.step();
        time
    };
    codecs.iter().map(one).collect()
}

fn through(
    tensors: &NamedTensors,
    codec: &dyn Codec,
    rounds: usize,
) -> Result<CodecTime, ModelError> {
    let (mut encode, mut decode) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    // One more, which is not counted.
    for round in 0..=rounds {
        let begin = Instant::now();
        let sent = wire::encode(tensors.clone(), codec);
        let middle = Instant::now();
        bytes = sent.iter().map(|t| t.data.len() as u64).sum();
        decode_own(sent, codec)?;
        let end = Instant::now();
        if round > 0 {
            encode.push((middle - begin).as_secs_f64() * 1e3);
            decode.push((end - middle).as_secs_f64() * 1e3);
        }
    }
    let (encode, decode) = (Spread::of(encode), Spread::of(decode));
    Ok(CodecTime { codec: codec.name().into(), bytes, encode, decode })
}

/// Reads what the codec itself has written.
pub fn decode_own(sent: Vec<v1::Tensor>, codec: &dyn Codec) -> Result<NamedTensors, ModelError> {
    wire::decode(sent, codec).map_err(|error| ModelError::Input {
        stage: format!("codec {}", codec.name()),
        expected: "what it encoded itself".into(),
        found: error.to_string(),
    })
}
