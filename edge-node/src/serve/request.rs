//! What is a valid inference request, whatever the transport.
//!
//! The rules live here once so that gRPC and REST refuse the same things with the same words, and
//! so that everything behind [`super::Predictor`] can trust the tensors it gets. Text that a client
//! sent is clipped and escaped before it appears in an error.

use std::time::Duration;

use bytes::Bytes;
use cleave_shared::{
    deadline::Deadline,
    model::{Dim, Port},
    tensor::HostTensor,
};
use serde_json::value::RawValue;

use super::{InferError, ModelInfo, Query, input, text_input};

/// The input that takes texts in place of token ids.
pub const TEXT: &str = "text";
/// Its datatype.
pub const TEXT_DTYPE: &str = "BYTES";

/// Parameter of a request, as Triton has it: how long its client waits, µs; 0 is for ever.
pub const TIMEOUT: &str = "timeout";

/// Longest id of a request, bytes: it comes back in the answer, and counters and UUIDs are much shorter.
const LONGEST_ID: usize = 256;

/// Extension parameters that change what an answer means: ignoring them would answer wrongly.
const UNSUPPORTED: [&str; 2] = ["classification", "shared_memory_region"];

/// Most characters of a client's text that an error repeats.
const CLIP: usize = 80;

/// One input as the request describes it, before any of it is believed.
#[derive(Debug, Clone, Copy)]
pub struct Stated<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: &'a [i64],
}

/// The values of an input in the forms that the transports carry.
pub enum Contents<'a> {
    /// Row-major little-endian bytes; of BYTES, each element behind its length.
    Raw(Bytes),
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    Texts(Vec<Bytes>),
    /// A JSON list, flat or nested, not parsed yet.
    Json(&'a RawValue),
}

/// Refuses a model or a version that is not the one served; an empty version means any.
pub fn check_model(info: &ModelInfo, name: &str, version: &str) -> Result<(), InferError> {
    if name != info.name {
        let (asked, served) = (shown(name), shown(&info.name));
        return Err(InferError::UnknownModel(format!(
            "model {asked} is not served here; ask for {served}"
        )));
    }
    if !version.is_empty() && version != info.version {
        let (name, asked, served) = (shown(name), shown(version), shown(&info.version));
        return Err(InferError::UnknownModel(format!(
            "model {name} has no version {asked}; ask for {served} or leave the version out"
        )));
    }
    Ok(())
}

/// Refuses the id of a request if it is longer than ids have to be.
pub fn check_id(id: &str) -> Result<(), InferError> {
    match id.len() {
        ..=LONGEST_ID => Ok(()),
        bytes => bad(format!("the request's id has {bytes} bytes; send at most {LONGEST_ID}")),
    }
}

/// When the client stops waiting, by the value of [`TIMEOUT`]; none is one of a wrong type.
pub fn deadline(micros: Option<u64>) -> Result<Option<Deadline>, InferError> {
    match micros {
        None => bad(format!("the parameter {TIMEOUT} is not a whole number of microseconds")),
        Some(0) => Ok(None),
        Some(micros) => Ok(Some(Deadline::after(Duration::from_micros(micros)))),
    }
}

/// Which outputs are requested, by their place in [`ModelInfo::outputs`]; all of them if none is named.
/// Refuses one that the model does not have, or one requested twice.
pub fn check_outputs<'a>(
    info: &ModelInfo,
    requested: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<usize>, InferError> {
    let mut wanted = Vec::new();
    for name in requested {
        let Some(place) = info.outputs.iter().position(|o| o.name == name) else {
            let (model, asked) = (shown(&info.name), shown(name));
            let served = listed("its output is", "its outputs are", names(&info.outputs));
            return bad(format!("model {model} has no output {asked}; {served}"));
        };
        if wanted.contains(&place) {
            let name = shown(name);
            return bad(format!("output {name} is requested more than once; request it once"));
        }
        wanted.push(place);
    }
    Ok(if wanted.is_empty() { (0..info.outputs.len()).collect() } else { wanted })
}

/// Refuses extension parameters that cannot be ignored; `owner` says whose they are.
pub fn check_parameters<'a>(
    owner: &str,
    keys: impl IntoIterator<Item = &'a str>,
) -> Result<(), InferError> {
    match keys.into_iter().find(|key| UNSUPPORTED.contains(key)) {
        Some(key) => {
            bad(format!("{owner} has the parameter {key}, which is not supported; drop it"))
        }
        None => Ok(()),
    }
}

/// Refuses inputs that the model does not have, one that is sent twice, and a required one that is
/// missing.
pub fn check_inputs(info: &ModelInfo, sent: &[&str]) -> Result<(), InferError> {
    let model = shown(&info.name);
    let required = || info.inputs.iter().filter(|p| !p.optional);
    let mut known = names(&info.inputs);
    if sent.is_empty() {
        let required = required().map(|p| shown(&p.name)).collect::<Vec<_>>().join(", ");
        return bad(format!("no input was sent; send {required}"));
    }
    if info.takes_text {
        known.push(TEXT);
    }
    if sent.len() > known.len() {
        let (count, first, second) = (sent.len(), shown(sent[0]), shown(sent[1]));
        let takes = listed("takes one,", "takes", known);
        return bad(format!(
            "{count} inputs were sent ({first}, {second}, ...); model {model} {takes}"
        ));
    }
    for (i, name) in sent.iter().enumerate() {
        if !known.contains(name) {
            let (name, all) = (shown(name), listed("its input is", "its inputs are", known));
            return bad(format!("model {model} has no input {name}; {all}"));
        }
        if sent[..i].contains(name) {
            return bad(format!("input {} is sent more than once; send it once", shown(name)));
        }
    }
    if info.takes_text && sent.contains(&TEXT) {
        return match sent.iter().find(|name| **name != TEXT) {
            Some(other) => bad(format!(
                "input \"{TEXT}\" is in place of all others; drop it, or drop {}",
                shown(other)
            )),
            None => Ok(()),
        };
    }
    match required().find(|p| !sent.contains(&p.name.as_str())) {
        Some(missing) => bad(format!("input {} is missing; send it", shown(&missing.name))),
        None => Ok(()),
    }
}

/// The query that the request means, or the first thing that is wrong with it.
pub fn validate(
    info: &ModelInfo,
    sent: Vec<(Stated<'_>, Contents<'_>)>,
) -> Result<Query, InferError> {
    let stated: Vec<&str> = sent.iter().map(|(s, _)| s.name).collect();
    check_inputs(info, &stated)?;
    let mut read: Vec<(&Port, HostTensor)> = Vec::new();
    for (stated, contents) in sent {
        // A model's own input comes first, whatever it is called.
        match info.inputs.iter().find(|p| p.name == stated.name) {
            Some(port) => {
                let tensor = input::read(port, info.max_batch, stated, contents)?;
                read.push((port, tensor));
            }
            None => return text_input::read(info.max_batch, stated, contents).map(Query::Texts),
        }
    }
    check_together(&read)?;
    let place = |port: &Port| info.inputs.iter().position(|p| p.name == port.name);
    read.sort_by_key(|(port, _)| place(port));
    Ok(Query::Tensors(read.into_iter().map(|(p, t)| (p.name.clone(), t)).collect()))
}

/// Refuses inputs that are not of one batch, or whose sequences have different lengths.
fn check_together(inputs: &[(&Port, HostTensor)]) -> Result<(), InferError> {
    let Some(((first, reference), others)) = inputs.split_first() else { return Ok(()) };
    for (port, tensor) in others {
        let (name, other) = (shown(&port.name), shown(&first.name));
        let (found, wanted) = (tensor.shape(), reference.shape());
        if found[0] != wanted[0] {
            return bad(format!(
                "input {name} has a batch of {}, input {other} one of {}; send the same",
                found[0], wanted[0]
            ));
        }
        let varies = |(a, b): &(&Dim, &Dim)| matches!((a, b), (Dim::UpTo(_), Dim::UpTo(_)));
        for (i, _) in port.shape.iter().zip(&first.shape).enumerate().filter(|(_, p)| varies(p)) {
            if found[i + 1] != wanted[i + 1] {
                return bad(format!(
                    "input {name} has shape {found:?}, input {other} {wanted:?}: dimension {} must be \
                     the same",
                    i + 1
                ));
            }
        }
    }
    Ok(())
}

/// A tensor's shape as metadata gives it: the batch, and every extent that varies, is -1.
pub fn metadata_shape(port: &Port) -> Vec<i64> {
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(n) => i64::try_from(*n).unwrap_or(i64::MAX),
        Dim::UpTo(_) => -1,
    };
    std::iter::once(-1).chain(port.shape.iter().map(extent)).collect()
}

fn names(ports: &[Port]) -> Vec<&str> {
    ports.iter().map(|p| p.name.as_str()).collect()
}

/// `one "a"`, or `many "a", "b"`.
fn listed(one: &str, many: &str, names: Vec<&str>) -> String {
    let intro = if names.len() == 1 { one } else { many };
    let all: Vec<String> = names.into_iter().map(shown).collect();
    format!("{intro} {}", all.join(", "))
}

/// A client's text, quoted, escaped to one line and not longer than an error should be.
pub fn shown(text: &str) -> String {
    format!("{:?}", clip(text))
}

/// At most [`CLIP`] characters of a text.
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(CLIP) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

pub fn shown_shape(shape: &[i64]) -> String {
    const DIMS: usize = 8;
    match shape.get(..DIMS) {
        Some(first) if shape.len() > DIMS => format!("{first:?} and {} more", shape.len() - DIMS),
        _ => format!("{shape:?}"),
    }
}

pub fn bad<T>(message: String) -> Result<T, InferError> {
    Err(InferError::BadInput(message))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
