//! What a request of `ModelStreamInfer` asks a generating model for.

use std::collections::HashMap;

use bytes::Bytes;
use cleave_shared::tensor::DType;

use super::{
    InferError, ModelInfo, Sampling,
    request::{check_model, shown},
    text::MAX_STOPS,
    text_input,
};
use crate::proto::inference::{
    InferParameter, ModelInferRequest, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};

/// Inputs of a generation; a request has one of them.
const TEXT_INPUT: &str = "text_input";
const ID_INPUT: &str = "input_ids";

/// Outputs of a generation.
pub const TEXT_OUTPUT: &str = "text_output";
pub const TOKEN_OUTPUT: &str = "token";
pub const LOGPROB_OUTPUT: &str = "logprob";

/// Tokens, where the request says nothing: as vLLM's backend for Triton.
const MAX_TOKENS: usize = 16;

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Ids(Vec<i64>),
}

impl Prompt {
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Ids(Vec::new()))
    }
}

/// A request that is understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    pub prompt: Prompt,
    pub max_tokens: usize,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    /// Whether each piece is a response of its own.
    pub stream: bool,
    /// Outputs that were named.
    outputs: Vec<String>,
}

impl Asked {
    /// Whether a response has this output; `usual` where none were named.
    pub fn wants(&self, output: &str, usual: bool) -> bool {
        if self.outputs.is_empty() { usual } else { self.outputs.iter().any(|name| name == output) }
    }
}

/// Reads and checks one request.
pub fn parse(info: &ModelInfo, request: ModelInferRequest) -> Result<Asked, InferError> {
    check_model(info, &request.model_name, &request.model_version)?;
    let known = [TEXT_OUTPUT, TOKEN_OUTPUT, LOGPROB_OUTPUT];
    let outputs: Vec<String> = request.outputs.into_iter().map(|output| output.name).collect();
    if let Some(name) = outputs.iter().find(|name| !known.contains(&name.as_str())) {
        let name = shown(name);
        return bad(format!("a generation has no output {name}; it has {}", known.join(", ")));
    }
    let prompt = prompt(request.inputs, request.raw_input_contents)?;
    if let Prompt::Text(text) = &prompt {
        text_input::check_length(TEXT_INPUT, 0, text)?;
    }
    let mut asked = Asked {
        prompt,
        max_tokens: MAX_TOKENS,
        sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: rand::random() },
        stop: Vec::new(),
        stream: true,
        outputs,
    };
    asked.read_parameters(request.parameters)?;
    Ok(asked)
}

impl Asked {
    fn read_parameters(
        &mut self,
        parameters: HashMap<String, InferParameter>,
    ) -> Result<(), InferError> {
        for (name, value) in parameters {
            let Some(value) = value.parameter_choice else { continue };
            let wrong = |what: &str| {
                InferError::BadInput(format!("the parameter {} must be {what}", shown(&name)))
            };
            match name.as_str() {
                "max_tokens" => {
                    self.max_tokens = whole(&value).ok_or_else(|| wrong("a whole number"))?;
                }
                "top_k" => {
                    let what = "a whole number, 0 for all tokens";
                    self.sampling.top_k = whole(&value).ok_or_else(|| wrong(what))?;
                }
                "temperature" => {
                    let real = real(&value).filter(|t| (0.0..=2.0).contains(t));
                    self.sampling.temperature =
                        real.ok_or_else(|| wrong("a number from 0 to 2"))? as f32;
                }
                "top_p" => {
                    let real = real(&value).filter(|p| *p > 0.0 && *p <= 1.0);
                    let what = "a number above 0, at most 1";
                    self.sampling.top_p = real.ok_or_else(|| wrong(what))? as f32;
                }
                "seed" => self.sampling.seed = seed(&value).ok_or_else(|| wrong("an integer"))?,
                "stop" => {
                    let what = format!("a string, or a JSON list of up to {MAX_STOPS}, none empty");
                    self.stop = stops(value).ok_or_else(|| wrong(&what))?;
                }
                "stream" => match value {
                    ParameterChoice::BoolParam(stream) => self.stream = stream,
                    _ => return Err(wrong("true or false")),
                },
                // Triton's own: each response says whether it is the last.
                name if name.starts_with("triton_") => {}
                name => {
                    return bad(format!(
                        "the parameter {} is unknown; a generation has max_tokens, temperature, \
                         top_k, top_p, seed, stop, stream",
                        shown(name)
                    ));
                }
            }
        }
        Ok(())
    }
}

fn prompt(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Prompt, InferError> {
    let mut inputs = inputs.into_iter();
    let (Some(mut input), None) = (inputs.next(), inputs.next()) else {
        return bad(format!("a generation takes one input, {TEXT_INPUT} or {ID_INPUT}"));
    };
    let typed = input.contents.take();
    let mut raw = raw.into_iter();
    let (first, more) = (raw.next(), raw.next());
    if first.is_some() == typed.is_some() || more.is_some() {
        let name = shown(&input.name);
        return bad(format!("input {name} needs either contents or one raw_input_contents"));
    }
    let datatype = |wanted: &str| {
        if input.datatype == wanted {
            return Ok(());
        }
        let (name, found) = (shown(&input.name), shown(&input.datatype));
        bad(format!("input {name} has datatype {found}; send {wanted}"))
    };
    let elements = elements(&input)?;
    match input.name.as_str() {
        TEXT_INPUT => {
            datatype("BYTES")?;
            let bytes = match (first, typed) {
                (Some(raw), _) => counted(raw),
                (None, typed) => typed.and_then(|mut t| t.bytes_contents.pop()),
            };
            match bytes.filter(|_| elements == 1).map(|bytes| String::from_utf8(bytes.into())) {
                Some(Ok(text)) => Ok(Prompt::Text(text)),
                Some(Err(_)) => bad(format!("input {TEXT_INPUT} is not UTF-8")),
                None => bad(format!("input {TEXT_INPUT} must be one BYTES element, shape [1]")),
            }
        }
        ID_INPUT => {
            datatype(DType::I64.name())?;
            let ids = match (first, typed) {
                (Some(raw), _) if raw.len().is_multiple_of(8) => raw
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default()))
                    .collect(),
                (None, Some(typed)) => typed.int64_contents,
                _ => Vec::new(),
            };
            if ids.len() != elements {
                let found = ids.len();
                return bad(format!("input {ID_INPUT} has {found} values, its shape {elements}"));
            }
            Ok(Prompt::Ids(ids))
        }
        other => {
            let name = shown(other);
            bad(format!("a generation has no input {name}; send {TEXT_INPUT} or {ID_INPUT}"))
        }
    }
}

/// Elements of a shape `[n]` or `[1, n]`.
fn elements(input: &InferInputTensor) -> Result<usize, InferError> {
    let count = match input.shape[..] {
        [n] | [1, n] => usize::try_from(n).ok(),
        _ => None,
    };
    let name = shown(&input.name);
    count.ok_or_else(|| InferError::BadInput(format!("input {name} must have shape [n] or [1, n]")))
}

/// The only BYTES element of raw contents.
fn counted(raw: Bytes) -> Option<Bytes> {
    let (length, _) = raw.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    (raw.len() == length.checked_add(4)?).then(|| raw.slice(4..))
}

fn whole(value: &ParameterChoice) -> Option<usize> {
    match value {
        ParameterChoice::Int64Param(v) => usize::try_from(*v).ok(),
        ParameterChoice::Uint64Param(v) => usize::try_from(*v).ok(),
        _ => None,
    }
}

fn seed(value: &ParameterChoice) -> Option<u64> {
    match value {
        ParameterChoice::Int64Param(v) => Some(v.cast_unsigned()),
        ParameterChoice::Uint64Param(v) => Some(*v),
        _ => None,
    }
}

fn real(value: &ParameterChoice) -> Option<f64> {
    match value {
        ParameterChoice::DoubleParam(v) => Some(*v),
        other => whole(other).map(|v| v as f64),
    }
}

/// One stop string, or a JSON list of them: a parameter is a text at most.
fn stops(value: ParameterChoice) -> Option<Vec<String>> {
    let ParameterChoice::StringParam(text) = value else { return None };
    let stops = serde_json::from_str::<Vec<String>>(&text).unwrap_or_else(|_| vec![text]);
    (stops.len() <= MAX_STOPS && !stops.iter().any(String::is_empty)).then_some(stops)
}

fn bad<T>(message: String) -> Result<T, InferError> {
    Err(InferError::BadInput(message))
}

#[cfg(test)]
#[path = "grpc_stream_request_tests.rs"]
mod tests;
