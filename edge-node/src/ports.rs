//! Between the names and forms that clients use and those inside the model.
//!
//! Clients name inputs and outputs as the model's ports do; inside, the only tensor of a model with one
//! input is `x`. A model that takes token ids also takes texts, if there is a tokenizer.

use cleave_shared::{
    config::Config,
    data::INPUT,
    model::{Dim, ModelSpec, Port},
    text::{TokenBatch, Tokenizer},
    wire::NamedTensors,
};

use crate::serve::InferError;

/// Names of inputs that are made from text, as Hugging Face has them.
const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";

/// The tokenizer of a model that takes token ids, if there is one; it cuts texts to what the model
/// takes.
pub fn tokenizer(config: &Config) -> Result<Option<Tokenizer>, String> {
    let inputs = config.model.inputs();
    let ids = inputs.iter().find(|p| p.name == IDS);
    let (Some(ids), Some(file)) = (ids, config.weights.tokenizer_file()) else { return Ok(None) };
    let longest = ids.largest().iter().product();
    let tokenizer = Tokenizer::open(&file).and_then(|t| t.with_longest(longest));
    let tokenizer = tokenizer.map_err(|e| format!("weights.tokenizer: {e}"))?;
    match ids.below {
        Some(below) if tokenizer.vocabulary() as i64 > below => {
            let (path, tokens) = (file.display(), tokenizer.vocabulary());
            Err(format!(
                "weights.tokenizer: {path} has {tokens} tokens, the model's vocabulary {below}; give \
                 the model's own tokenizer"
            ))
        }
        _ => Ok(Some(tokenizer)),
    }
}

/// Those inputs of the model that texts give, by the names that clients use.
pub fn tokens(
    spec: &ModelSpec,
    tokenizer: Option<&Tokenizer>,
    texts: &[String],
) -> Result<NamedTensors, InferError> {
    let Some(tokenizer) = tokenizer else {
        return Err(InferError::BadInput("this model takes no text".into()));
    };
    let batch = tokenizer.encode_batch(texts).map_err(|e| InferError::BadInput(e.to_string()))?;
    let TokenBatch { ids, mask, types } = batch;
    let named = [(IDS, ids), (MASK, mask), (TYPES, types)];
    let inputs = spec.inputs();
    let known = named.into_iter().filter(|(name, _)| inputs.iter().any(|p| p.name == *name));
    Ok(known.map(|(name, tensor)| (name.to_string(), tensor)).collect())
}

/// Inputs by the names that stages use: the only one is `x`.
pub fn inside(spec: &ModelSpec, mut inputs: NamedTensors) -> NamedTensors {
    if let ([_], [(name, _)]) = (&spec.inputs()[..], &mut inputs[..]) {
        *name = INPUT.into();
    }
    inputs
}

/// Inputs by the names that clients use: the reverse of [`inside`].
pub fn outside_inputs(spec: &ModelSpec, mut inputs: NamedTensors) -> NamedTensors {
    if let ([port], [(name, _)]) = (&spec.inputs()[..], &mut inputs[..]) {
        name.clone_from(&port.name);
    }
    inputs
}

/// Outputs by the names that clients use, in the order of the model's.
pub fn outside(spec: &ModelSpec, mut outputs: NamedTensors) -> Result<NamedTensors, InferError> {
    let ports = spec.outputs();
    if let ([port], [(name, _), ..]) = (&ports[..], &mut outputs[..]) {
        *name = port.name.clone();
    }
    let take = |port: &Port| {
        let found = outputs.iter().position(|(name, _)| *name == port.name);
        let lost = || InferError::Internal(format!("the model gave no output {}", port.name));
        Ok(outputs.swap_remove(found.ok_or_else(lost)?))
    };
    ports.iter().map(take).collect()
}

/// Bytes of the output for these inputs. An extent that varies is that of the inputs at the same place:
/// a model that answers for each token answers for the tokens that were sent.
pub fn output_bytes(spec: &ModelSpec, inputs: &NamedTensors) -> usize {
    let batch = inputs.first().and_then(|(_, t)| t.shape().first().copied()).unwrap_or(0);
    let ports = spec.inputs();
    let sent = |place: usize| {
        inputs.iter().find_map(|(name, tensor)| {
            let port = ports.iter().find(|p| p.name == *name)?;
            let varies = matches!(port.shape.get(place), Some(Dim::UpTo(_)));
            varies.then(|| tensor.shape().get(place + 1).copied())?
        })
    };
    let elements = |port: &Port| -> usize {
        let extents = port.shape.iter().enumerate().map(|(place, dim)| match *dim {
            Dim::Fixed(n) => n,
            Dim::UpTo(most) => sent(place).unwrap_or(most),
        });
        extents.product()
    };
    spec.outputs().iter().map(|port| batch * elements(port) * port.dtype.size()).sum()
}
