//! What is a valid inference request, whatever the transport.
//!
//! The rules live here once so that gRPC and REST refuse the same things with the same words, and
//! so that everything behind [`super::Predictor`] can trust the tensor it gets. Text that a client
//! sent is clipped and escaped before it appears in an error.

use std::fmt::Write;

use bytes::Bytes;
use cleave_shared::tensor::{DType, HostTensor, byte_length};
use serde_json::value::RawValue;

use super::{InferError, ModelInfo, json_data};

/// The only element type that models take.
pub const INPUT_DTYPE: DType = DType::F32;

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
    /// Row-major little-endian bytes.
    Raw(Bytes),
    /// Typed FP32 values.
    Values(Vec<f32>),
    /// A JSON list of numbers, flat or nested, not parsed yet.
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

/// Refuses requested outputs that the model does not have, or one requested twice.
pub fn check_outputs<'a>(
    info: &ModelInfo,
    requested: impl IntoIterator<Item = &'a str>,
) -> Result<(), InferError> {
    for (i, name) in requested.into_iter().enumerate() {
        let served = shown(&info.output_name);
        if name != info.output_name {
            let (model, asked) = (shown(&info.name), shown(name));
            return bad(format!("model {model} has no output {asked}; its output is {served}"));
        }
        if i > 0 {
            return bad(format!("output {served} is requested more than once; request it once"));
        }
    }
    Ok(())
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

/// The one input that a request must have.
pub fn only_input<T>(
    info: &ModelInfo,
    inputs: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> Result<T, InferError> {
    let wanted = shown(&info.input_name);
    if inputs.len() > 1 {
        let (count, first, second) =
            (inputs.len(), shown(name(&inputs[0])), shown(name(&inputs[1])));
        let model = shown(&info.name);
        return bad(format!(
            "{count} inputs were sent ({first}, {second}, ...); model {model} takes one, {wanted}"
        ));
    }
    match inputs.into_iter().next() {
        Some(input) => Ok(input),
        None => bad(format!("no input was sent; send {wanted}")),
    }
}

/// The tensor that the request means, or the first thing that is wrong with it.
pub fn validate(
    info: &ModelInfo,
    stated: Stated<'_>,
    contents: Contents<'_>,
) -> Result<HostTensor, InferError> {
    let name = shown(stated.name);
    if stated.name != info.input_name {
        let (model, wanted) = (shown(&info.name), shown(&info.input_name));
        return bad(format!("model {model} has no input {name}; its input is {wanted}"));
    }
    if stated.datatype != INPUT_DTYPE.name() {
        let (found, wanted) = (shown(stated.datatype), INPUT_DTYPE.name());
        return bad(format!("input {name} has datatype {found}; send {wanted}"));
    }
    let shape = check_shape(info, stated)?;
    let expected = byte_length(INPUT_DTYPE, &shape)
        .map_err(|e| InferError::BadInput(format!("input {name}: {e}; send a smaller batch")))?;
    let data = match contents {
        Contents::Raw(bytes) => check_raw(&name, &shape, expected, bytes)?,
        Contents::Values(values) => check_values(&name, &shape, expected, &values)?,
        Contents::Json(json) => {
            let values = json_data::flatten(json.get(), &shape)
                .map_err(|e| InferError::BadInput(format!("input {name}, data: {}", clip(&e))))?;
            check_values(&name, &shape, expected, &values)?
        }
    };
    check_finite(&name, &shape, &data)?;
    HostTensor::new(INPUT_DTYPE, shape, data)
        .map_err(|e| InferError::BadInput(format!("input {name}: {e}")))
}

/// The stated shape as `[batch, ...input_shape]`.
fn check_shape(info: &ModelInfo, stated: Stated<'_>) -> Result<Vec<usize>, InferError> {
    let refuse = |why: String| {
        let (name, found) = (shown(stated.name), shown_shape(stated.shape));
        let sample: String = info.input_shape.iter().fold(String::new(), |mut text, d| {
            let _ = write!(text, ", {d}");
            text
        });
        let most = info.max_batch;
        bad(format!(
            "input {name} has shape {found}: {why}; send [batch{sample}] with batch 1 to {most}"
        ))
    };
    let wanted = info.input_shape.len() + 1;
    let Some((&batch, sample)) = stated.shape.split_first() else {
        return refuse(format!("it has rank 0, not {wanted}"));
    };
    if sample.len() + 1 != wanted {
        return refuse(format!("it has rank {}, not {wanted}", sample.len() + 1));
    }
    for (i, (&found, &wanted)) in sample.iter().zip(&info.input_shape).enumerate() {
        if usize::try_from(found) != Ok(wanted) {
            return refuse(format!("dimension {} is {found}, not {wanted}", i + 1));
        }
    }
    match usize::try_from(batch) {
        Ok(n) if (1..=info.max_batch).contains(&n) => {
            Ok(std::iter::once(n).chain(info.input_shape.iter().copied()).collect())
        }
        _ => refuse(format!("the batch is {batch}")),
    }
}

fn check_raw(
    name: &str,
    shape: &[usize],
    expected: usize,
    bytes: Bytes,
) -> Result<Bytes, InferError> {
    let found = bytes.len();
    if found == expected {
        return Ok(bytes);
    }
    let what = if found < expected { "truncated" } else { "too long" };
    bad(format!(
        "input {name} has {what} raw contents: {found} bytes, shape {shape:?} of FP32 needs {expected}"
    ))
}

fn check_values(
    name: &str,
    shape: &[usize],
    expected: usize,
    values: &[f32],
) -> Result<Bytes, InferError> {
    let (found, needed) = (values.len(), expected / INPUT_DTYPE.size());
    if found != needed {
        return bad(format!("input {name} has {found} values, shape {shape:?} needs {needed}"));
    }
    let mut data = Vec::with_capacity(expected);
    data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    Ok(data.into())
}

/// Refuses NaN and infinity: they would spread through every layer and come back as a confident
/// wrong answer.
fn check_finite(name: &str, shape: &[usize], data: &[u8]) -> Result<(), InferError> {
    let values = data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let Some((element, value)) = values.enumerate().find(|(_, v)| !v.is_finite()) else {
        return Ok(());
    };
    let mut rest = element;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&d| {
            let i = rest % d.max(1);
            rest /= d.max(1);
            i
        })
        .collect();
    index.reverse();
    let what = if value.is_nan() { "NaN" } else { "infinity" };
    bad(format!(
        "input {name} has {what} at index {index:?} (element {element}); send finite values"
    ))
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

fn shown_shape(shape: &[i64]) -> String {
    const DIMS: usize = 8;
    match shape.get(..DIMS) {
        Some(first) if shape.len() > DIMS => format!("{first:?} and {} more", shape.len() - DIMS),
        _ => format!("{shape:?}"),
    }
}

fn bad<T>(message: String) -> Result<T, InferError> {
    Err(InferError::BadInput(message))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
