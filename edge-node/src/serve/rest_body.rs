//! Bodies of the REST infer call: JSON, alone or followed by raw tensor bytes.
//!
//! The binary tensor extension puts the values after the JSON, whose length then stands in a
//! header: no number is written as text, and the values are taken from the body without a copy.

use std::borrow::Cow;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use cleave_shared::tensor::{DType, HostTensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{
    InferError, ModelInfo, Prediction,
    request::{self, Contents, Stated, clip},
};

/// Length of the JSON at the start of a body that has raw tensor bytes after it.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

type Parameters = Map<String, Value>;

#[derive(Debug, Deserialize)]
struct Body<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(default, borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

#[derive(Debug, Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Option<Parameters>,
    /// Parsed once the shape is known to be acceptable.
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// A request that passed every check, and how its answer should look.
#[derive(Debug)]
pub struct Parsed {
    pub input: HostTensor,
    pub id: Option<String>,
    /// Whether the output goes after the JSON as raw bytes.
    pub binary_output: bool,
}

/// Reads and checks one body; `json_length` is the value of [`HEADER_LENGTH`].
pub fn parse(
    info: &ModelInfo,
    body: Bytes,
    json_length: Option<&HeaderValue>,
) -> Result<Parsed, InferError> {
    let (json, binary) = split(body, json_length)?;
    let body: Body<'_> = serde_json::from_slice(&json)
        .map_err(|e| bad(format!("the JSON of the request: {}", clip(&e.to_string()))))?;

    let outputs = body.outputs.unwrap_or_default();
    request::check_outputs(info, outputs.iter().map(|o| o.name.as_str()))?;
    let mut binary_output = flag(body.parameters.as_ref(), "binary_data_output")?.unwrap_or(false);
    for parameters in outputs.iter().filter_map(|o| o.parameters.as_ref()) {
        request::check_parameters("the requested output", parameters.keys().map(String::as_str))?;
        binary_output = flag(Some(parameters), "binary_data")?.unwrap_or(binary_output);
    }

    let input = request::only_input(info, body.inputs, |i| &i.name)?;
    let contents = contents(&input, binary)?;
    let stated = Stated { name: &input.name, datatype: &input.datatype, shape: &input.shape };
    let input = request::validate(info, stated, contents)?;
    Ok(Parsed { input, id: body.id, binary_output })
}

/// The JSON and the raw bytes after it; neither is copied.
fn split(mut body: Bytes, json_length: Option<&HeaderValue>) -> Result<(Bytes, Bytes), InferError> {
    let Some(value) = json_length else {
        return Ok((body, Bytes::new()));
    };
    let length = value.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| {
        bad("Inference-Header-Content-Length is not a number; send the length of the JSON".into())
    })?;
    if length > body.len() {
        let found = body.len();
        return Err(bad(format!(
            "Inference-Header-Content-Length is {length}, the body has only {found} bytes"
        )));
    }
    let binary = body.split_off(length);
    Ok((body, binary))
}

/// Where the values of the input are: in its `data`, or after the JSON.
fn contents<'a>(input: &Input<'a>, mut binary: Bytes) -> Result<Contents<'a>, InferError> {
    let name = request::shown(&input.name);
    if let Some(parameters) = &input.parameters {
        request::check_parameters(&format!("input {name}"), parameters.keys().map(String::as_str))?;
    }
    let size = match input.parameters.as_ref().and_then(|p| p.get("binary_data_size")) {
        None => None,
        Some(value) => Some(value.as_u64().ok_or_else(|| {
            bad(format!("input {name}: binary_data_size is not a number of bytes"))
        })?),
    };
    let found = binary.len();
    match (input.data, size) {
        (Some(_), Some(_)) => {
            Err(bad(format!("input {name} has both data and binary_data_size; send one of them")))
        }
        (None, None) => Err(bad(format!("input {name} has no contents; send data or binary data"))),
        (Some(data), None) if found == 0 => Ok(Contents::Json(data)),
        (Some(_), None) => Err(bad(format!(
            "{found} bytes follow the JSON, but input {name} has data and no binary_data_size"
        ))),
        (None, Some(size)) if usize::try_from(size) == Ok(found) => {
            Ok(Contents::Raw(binary.split_to(found)))
        }
        (None, Some(size)) => Err(bad(format!(
            "input {name} has binary_data_size {size}, but {found} bytes follow the JSON; \
             is Inference-Header-Content-Length set and the body complete?"
        ))),
    }
}

/// A parameter that must be true or false where it is given.
fn flag(parameters: Option<&Parameters>, key: &str) -> Result<Option<bool>, InferError> {
    match parameters.and_then(|p| p.get(key)) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(bad(format!("the parameter {key} is not true or false"))),
    }
}

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: Parameters,
    outputs: [ReplyOutput<'a>; 1],
}

#[derive(Serialize)]
struct ReplyOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Parameters,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Numbers>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// The answer to a request: JSON, or JSON and the raw bytes of the output.
pub fn respond(
    info: &ModelInfo,
    id: Option<String>,
    prediction: &Prediction,
    binary: bool,
) -> Result<Response, InferError> {
    let output = &prediction.output;
    let mut parameters = Parameters::new();
    parameters.insert("split_point".into(), prediction.split_point.into());
    parameters.extend(prediction.timing.parameters().map(|(k, ms)| (k.to_string(), ms.into())));
    let mut of_output = Parameters::new();
    if binary {
        of_output.insert("binary_data_size".into(), output.data().len().into());
    }
    let reply = Reply {
        model_name: &info.name,
        model_version: &info.version,
        id,
        parameters,
        outputs: [ReplyOutput {
            name: &info.output_name,
            datatype: output.dtype().name(),
            shape: output.shape(),
            parameters: of_output,
            data: if binary { None } else { Some(numbers(output)?) },
        }],
    };
    if !binary {
        return Ok(Json(reply).into_response());
    }
    let mut body = serde_json::to_vec(&reply).map_err(|e| internal(e.to_string()))?;
    let length = HeaderValue::from(body.len());
    body.extend_from_slice(output.data());
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(HEADER_LENGTH, length), (header::CONTENT_TYPE, kind)], body).into_response())
}

/// The values as JSON can write them; JSON has no NaN, and null would be a silent lie.
fn numbers(output: &HostTensor) -> Result<Numbers, InferError> {
    match output.dtype() {
        DType::F32 => {
            let values = output.to_f32().map_err(|e| internal(e.to_string()))?;
            if let Some(i) = values.iter().position(|v| !v.is_finite()) {
                return Err(internal(format!(
                    "element {i} is {}, which JSON cannot say",
                    values[i]
                )));
            }
            Ok(Numbers::Floats(values))
        }
        DType::I64 => output.to_i64().map(Numbers::Integers).map_err(|e| internal(e.to_string())),
        other => Err(internal(format!("{} has no JSON form here", other.name()))),
    }
}

fn internal(why: String) -> InferError {
    InferError::Internal(format!("the output: {why}; ask for it with binary_data true"))
}

fn bad(message: String) -> InferError {
    InferError::BadInput(message)
}

#[cfg(test)]
#[path = "rest_body_tests.rs"]
mod tests;
