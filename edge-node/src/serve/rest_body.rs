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
use cleave_shared::{
    deadline::Deadline,
    tensor::{DType, HostTensor},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{
    EXITS, ExitUse, InferError, InferRequest, ModelInfo, Prediction,
    request::{self, Contents, Stated, TIMEOUT, clip},
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
    pub request: InferRequest,
    pub id: Option<String>,
    pub outputs: Vec<Wanted>,
}

/// An output that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Its place in [`ModelInfo::outputs`].
    pub place: usize,
    /// Whether it goes after the JSON as raw bytes.
    pub binary: bool,
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
    request::check_id(body.id.as_deref().unwrap_or_default())?;
    let outputs = wanted(info, &body)?;
    let exits = flag(body.parameters.as_ref(), EXITS)?.unwrap_or(true);
    let deadline = deadline(body.parameters.as_ref())?;
    let names: Vec<&str> = body.inputs.iter().map(|i| i.name.as_ref()).collect();
    request::check_inputs(info, &names)?;
    let contents = contents(&body.inputs, binary)?;
    let stated = body.inputs.iter().map(|i| Stated {
        name: &i.name,
        datatype: &i.datatype,
        shape: &i.shape,
    });
    let query = request::validate(info, stated.zip(contents).collect())?;
    Ok(Parsed { request: InferRequest { query, exits, deadline }, id: body.id, outputs })
}

/// The outputs that the request names, or all; each may say how it wants to be sent.
fn wanted(info: &ModelInfo, body: &Body<'_>) -> Result<Vec<Wanted>, InferError> {
    let named = body.outputs.as_deref().unwrap_or_default();
    let places = request::check_outputs(info, named.iter().map(|o| o.name.as_str()))?;
    let usual = flag(body.parameters.as_ref(), "binary_data_output")?.unwrap_or(false);
    let binary = |i: usize| match named.get(i).and_then(|o| o.parameters.as_ref()) {
        None => Ok(usual),
        Some(parameters) => {
            let keys = parameters.keys().map(String::as_str);
            request::check_parameters("the requested output", keys)?;
            Ok(flag(Some(parameters), "binary_data")?.unwrap_or(usual))
        }
    };
    let places = places.into_iter().enumerate();
    places.map(|(i, place)| Ok(Wanted { place, binary: binary(i)? })).collect()
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

/// Where the values of each input are: in its `data`, or after the JSON, one behind the other.
fn contents<'a>(inputs: &[Input<'a>], mut binary: Bytes) -> Result<Vec<Contents<'a>>, InferError> {
    let sizes = inputs.iter().map(binary_size).collect::<Result<Vec<_>, _>>()?;
    let found = binary.len();
    let mut total = Some(0u64);
    for (input, size) in inputs.iter().zip(&sizes) {
        let name = request::shown(&input.name);
        match (input.data, size) {
            (Some(_), Some(_)) => {
                return Err(bad(format!(
                    "input {name} has both data and binary_data_size; send one of them"
                )));
            }
            (None, None) => {
                return Err(bad(format!("input {name} has no contents; send data or binary data")));
            }
            (_, size) => total = total.and_then(|t| t.checked_add(size.unwrap_or(0))),
        }
    }
    if sizes.iter().all(Option::is_none) && found > 0 {
        return Err(bad(format!(
            "{found} bytes follow the JSON, but no input has a binary_data_size"
        )));
    }
    if total.and_then(|t| usize::try_from(t).ok()) != Some(found) {
        let whose = match inputs {
            [one] => format!("input {} has", request::shown(&one.name)),
            _ => "the inputs together have".into(),
        };
        let total = total.unwrap_or(u64::MAX);
        return Err(bad(format!(
            "{whose} binary_data_size {total}, but {found} bytes follow the JSON; \
             is Inference-Header-Content-Length set and the body complete?"
        )));
    }
    let take = |(input, size): (&Input<'a>, Option<u64>)| match (input.data, size) {
        (Some(data), _) => Contents::Json(data),
        // The sum of the sizes is the length of what is there.
        (None, size) => Contents::Raw(binary.split_to(size.unwrap_or(0) as usize)),
    };
    Ok(inputs.iter().zip(sizes).map(take).collect())
}

/// How many bytes of this input follow the JSON, if it says so.
fn binary_size(input: &Input<'_>) -> Result<Option<u64>, InferError> {
    let Some(parameters) = &input.parameters else { return Ok(None) };
    let name = request::shown(&input.name);
    request::check_parameters(&format!("input {name}"), parameters.keys().map(String::as_str))?;
    match parameters.get("binary_data_size") {
        None => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or_else(|| bad(format!("input {name}: binary_data_size is not a number of bytes"))),
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

/// When the client stops waiting, if a parameter says so.
fn deadline(parameters: Option<&Parameters>) -> Result<Option<Deadline>, InferError> {
    match parameters.and_then(|p| p.get(TIMEOUT)) {
        None => Ok(None),
        Some(micros) => request::deadline(micros.as_u64()),
    }
}

#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: Parameters,
    outputs: Vec<ReplyOutput<'a>>,
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

/// The answer to a request: JSON, and behind it the raw bytes of those outputs that want it.
pub fn respond(
    info: &ModelInfo,
    id: Option<String>,
    prediction: &Prediction,
    wanted: &[Wanted],
) -> Result<Response, InferError> {
    let mut parameters = Parameters::new();
    parameters.insert("split_point".into(), prediction.split_point.into());
    parameters.extend(prediction.timing.parameters().map(|(k, ms)| (k.to_string(), ms.into())));
    if let Some(ExitUse { exit, confidence, offline }) = &prediction.exits {
        parameters.insert("exit".into(), exit.as_str().into());
        parameters.insert("confidence".into(), (*confidence).into());
        parameters.insert("offline".into(), (*offline).into());
    }
    let mut outputs = Vec::with_capacity(wanted.len());
    let mut binary: Option<Vec<u8>> = None;
    for Wanted { place, binary: raw } in wanted {
        let Some((name, output)) = prediction.outputs.get(*place) else {
            return Err(InferError::Internal("the model gave too few outputs".into()));
        };
        let mut parameters = Parameters::new();
        if *raw {
            parameters.insert("binary_data_size".into(), output.data().len().into());
            binary.get_or_insert_default().extend_from_slice(output.data());
        }
        outputs.push(ReplyOutput {
            name,
            datatype: output.dtype().name(),
            shape: output.shape(),
            parameters,
            data: if *raw { None } else { Some(numbers(output)?) },
        });
    }
    let (model_name, model_version) = (&info.name, &info.version);
    let reply = Reply { model_name, model_version, id, parameters, outputs };
    let Some(binary) = binary else {
        return Ok(Json(reply).into_response());
    };
    let mut body = serde_json::to_vec(&reply).map_err(|e| internal(e.to_string()))?;
    let length = HeaderValue::from(body.len());
    body.extend_from_slice(&binary);
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
