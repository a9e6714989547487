//! Stacked LSTM or GRU: classification of sequences, and language models over characters.
//!
//! ```text
//! classify         [embedding →] layer0 → … → layerN → fc        (Graves 2012, chapter 4)
//! language-model    embedding  → layer0 → … → layerN → decoder   (Graves, arXiv:1308.0850)
//! ```
//!
//! What crosses a cut between two layers is the sequence of hidden states, `x`, and `length` if the
//! samples are padded. A classifier's last layer hands on `h_n` alone, its state at each sample's
//! end: one vector instead of a sequence, which is what makes the cut behind it cheap. The states in
//! between stay on the node that has the layer, in its cache, when a sequence is continued step by
//! step; in training every sample begins at zeros. Names and layouts are those of a PyTorch module
//! with `self.embedding = nn.Embedding(..)`, `self.rnn = nn.LSTM(..)` and `self.fc` or `self.decoder
//! = nn.Linear(..)`.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module},
};

use super::{
    Activation, Block, Init, ModelError, ModelFamily, Params, Pass, Port, StagePlan, Value,
    project,
    recurrent::{Cell, Recurrent, State, at_end},
    spec::sizes_in_range,
};

/// What the model says about a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SequenceTask {
    /// One class, from the state at the end: logits `[batch, classes]`.
    Classify,
    /// The next token at each position: logits `[batch, sequence, vocabulary]`.
    LanguageModel,
}

/// Sizes of a recurrent network. Its input is either token ids (`vocabulary` and `embedding`) or FP32
/// vectors (`features`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RnnSpec {
    pub cell: Cell,
    pub task: SequenceTask,
    /// Token ids are below this; 256 for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,
    /// Width of a token's vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<usize>,
    /// Numbers in each position of a sequence that is not tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<usize>,
    /// Units of each layer.
    pub hidden: usize,
    pub layers: usize,
    /// Number of logits of a classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// The longest sequence of one call.
    pub longest: usize,
}

/// Real lengths of padded samples: INT64 `[batch]`, each in 1..=sequence.
const LENGTH: &str = "length";
/// Token ids, as Hugging Face names them.
const TOKENS: &str = "input_ids";
/// The lengths as Hugging Face's tokenizers give them: 1 for a token, 0 for the padding behind it.
const MASK: &str = "attention_mask";
/// Hidden state at the end of each sample: `[batch, hidden]`, as in PyTorch.
const FINAL: &str = "h_n";

impl RnnSpec {
    /// A classifier of texts by their bytes, such as good and bad reviews: the models `lstm` and `gru`.
    /// Token 0 is padding, token `b + 1` the byte `b`.
    pub fn of_bytes(cell: Cell) -> Self {
        Self {
            cell,
            task: SequenceTask::Classify,
            vocabulary: Some(257),
            embedding: Some(128),
            features: None,
            hidden: 256,
            layers: 2,
            classes: Some(2),
            longest: 256,
        }
    }

    /// Width of what the first layer gets.
    fn width(&self) -> usize {
        self.embedding.or(self.features).unwrap_or(0)
    }

    /// Name, and number of logits, of the last stage.
    fn output(&self) -> (&'static str, usize) {
        match self.task {
            SequenceTask::Classify => ("fc", self.classes.unwrap_or(0)),
            SequenceTask::LanguageModel => ("decoder", self.vocabulary.unwrap_or(0)),
        }
    }

    /// A sequence of vectors, with its length where samples may be padded. A language model needs
    /// none: no position sees the padding behind it, and its label there is to be ignored.
    fn sequence(&self, width: usize) -> Vec<Port> {
        let mut ports = vec![Port::sequence("x", self.longest, &[width])];
        if self.task == SequenceTask::Classify {
            ports.push(Port::integer(LENGTH).optional());
        }
        ports
    }

    fn embedding_plan(&self) -> Option<StagePlan> {
        let (vocabulary, width, longest) = (self.vocabulary?, self.embedding?, self.longest);
        Some(StagePlan::new("embedding", self.sequence(width), 0, move |params| {
            TokenEmbedding::new([vocabulary, width], longest, params)
        }))
    }

    fn layer_plan(&self, layer: usize) -> StagePlan {
        let input = if layer == 0 { self.width() } else { self.hidden };
        let (cell, sizes, longest) = (self.cell, [input, self.hidden], self.longest);
        let last = layer + 1 == self.layers;
        let only_end = last && self.task == SequenceTask::Classify;
        let outputs = match only_end {
            true => vec![Port::float(FINAL, &[self.hidden])],
            false => self.sequence(self.hidden),
        };
        let flops = 2 * longest * cell.gates() * self.hidden * (input + self.hidden);
        StagePlan::new(format!("layer{layer}"), outputs, flops, move |params| {
            let recurrent = Recurrent::new(cell, layer, sizes, params)?;
            Ok(Layer { recurrent, longest, only_end })
        })
    }

    fn output_plan(&self) -> StagePlan {
        let ((name, logits), hidden) = (self.output(), self.hidden);
        let positions = if self.task == SequenceTask::Classify { 1 } else { self.longest };
        let outputs = vec![match self.task {
            SequenceTask::Classify => Port::float("x", &[logits]),
            SequenceTask::LanguageModel => Port::sequence("x", self.longest, &[logits]),
        }];
        let flops = 2 * positions * hidden * logits;
        StagePlan::new(name, outputs, flops, move |params| {
            Decoder::new(name, [hidden, logits], params)
        })
    }
}

impl ModelFamily for RnnSpec {
    fn inputs(&self) -> Vec<Port> {
        let first = match self.features {
            Some(features) => Port::sequence("x", self.longest, &[features]),
            None => Port::tokens(TOKENS, self.longest).below(self.vocabulary.unwrap_or(0)),
        };
        let mut ports = vec![first];
        if self.task == SequenceTask::Classify {
            ports.push(Port::integer(LENGTH).optional());
            if self.features.is_none() {
                ports.push(Port::tokens(MASK, self.longest).below(2).optional());
            }
        }
        ports
    }

    fn outputs(&self) -> Vec<Port> {
        vec![match (self.task, self.output()) {
            (SequenceTask::Classify, (_, classes)) => Port::float("logits", &[classes]),
            (SequenceTask::LanguageModel, (_, vocabulary)) => {
                Port::sequence("logits", self.longest, &[vocabulary])
            }
        }]
    }

    fn check(&self) -> Result<(), String> {
        match (self.vocabulary, self.embedding, self.features) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => (),
            _ => return Err("give vocabulary and embedding, or features alone".into()),
        }
        match (self.task, self.classes, self.vocabulary) {
            (SequenceTask::Classify, Some(_), _) => (),
            (SequenceTask::Classify, None, _) => return Err("task classify needs classes".into()),
            (SequenceTask::LanguageModel, None, Some(_)) => (),
            (SequenceTask::LanguageModel, _, _) => {
                return Err("task language-model needs vocabulary, and has no classes".into());
            }
        }
        let optional = [self.vocabulary, self.embedding, self.features, self.classes];
        let sizes = optional.into_iter().flatten();
        sizes_in_range(sizes.chain([self.hidden, self.longest]))?;
        match self.layers {
            1..=64 => Ok(()),
            bad => Err(format!("layers = {bad} is out of range (1..=64)")),
        }
    }

    fn stages(&self) -> Vec<StagePlan> {
        let layers = (0..self.layers).map(|i| self.layer_plan(i));
        self.embedding_plan().into_iter().chain(layers).chain([self.output_plan()]).collect()
    }

    fn prefixes(&self) -> &'static [&'static str] {
        // A file saved from the `nn.LSTM` itself has `weight_ih_l0`.
        &["rnn."]
    }
}

/// Token ids → their vectors. `[batch, sequence]` → `[batch, sequence, width]`
#[derive(Module, Debug)]
struct TokenEmbedding {
    /// `[vocabulary, width]`
    weight: Param<Tensor<2>>,
    longest: usize,
}

impl TokenEmbedding {
    fn new(sizes: [usize; 2], longest: usize, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let weight = params.param("embedding.weight", sizes, Init::Normal(1.0))?;
        Ok(Self { weight, longest })
    }
}

impl Block for TokenEmbedding {
    fn forward(
        &self,
        mut input: Activation,
        pass: &mut Pass<'_>,
    ) -> Result<Activation, ModelError> {
        let [vocabulary, _] = self.weight.dims();
        // Where a model has one input only, as the language model, that is called x.
        let first = if input.get("x").is_some() { "x" } else { TOKENS };
        let ids = match input.take(pass.stage, first)? {
            Value::I2(ids) => ids,
            other => return Err(wrong(pass, "INT64 [batch, sequence]".into(), &other)),
        };
        check_extents(pass, ids.dims(), self.longest)?;
        let outside = |&id: &i64| id < 0 || id >= vocabulary as i64;
        if let Some(bad) = ids.to_data().iter::<i64>().find(outside) {
            let expected = format!("token ids in 0..{vocabulary}");
            let found = bad.to_string();
            return Err(ModelError::Input { stage: pass.stage.into(), expected, found });
        }
        let length = match (input.take_optional(LENGTH), input.take_optional(MASK)) {
            (length, None) => length,
            (None, Some(mask)) => Some(length_of(pass, mask, ids.dims())?),
            (Some(_), Some(_)) => {
                let expected = format!("{LENGTH} or {MASK}");
                let stage = pass.stage.into();
                return Err(ModelError::Input { stage, expected, found: "both".into() });
            }
        };
        let x = Value::R3(module::embedding(self.weight.val(), ids));
        Ok(with_length(x.into(), length))
    }
}

/// One recurrent layer. `x` `[batch, sequence, in]` → `x` `[batch, sequence, hidden]`, or `h_n`
/// `[batch, hidden]`
#[derive(Module, Debug)]
struct Layer {
    recurrent: Recurrent,
    longest: usize,
    /// Only the state at the end is of use to what follows.
    only_end: bool,
}

impl Block for Layer {
    fn forward(
        &self,
        mut input: Activation,
        pass: &mut Pass<'_>,
    ) -> Result<Activation, ModelError> {
        let [width, _] = self.recurrent.sizes();
        let x = match input.take(pass.stage, "x")? {
            Value::R3(x) if x.dims()[2] == width => x,
            other => return Err(wrong(pass, format!("FP32 [batch, sequence, {width}]"), &other)),
        };
        let [batch, sequence, _] = x.dims();
        check_extents(pass, [batch, sequence], self.longest)?;
        let length = input.take_optional(LENGTH);
        let lengths = match &length {
            Some(value) => Some(read_lengths(pass, value, [batch, sequence])?),
            None => None,
        };
        let start = self.resume(pass, batch, &x)?;
        let states = self.recurrent.forward(x, start);
        self.keep(pass, &states, lengths.as_deref());
        let steps: Vec<Tensor<2>> = states.into_iter().map(|s| s.h).collect();
        if self.only_end {
            let h_n = Value::R2(at_end(steps, lengths.as_deref()));
            return Ok(Activation::default().with(FINAL, h_n));
        }
        Ok(with_length(Value::R3(Tensor::stack(steps, 1)).into(), length))
    }
}

impl Layer {
    /// The state that the cache has of this sequence, or that of a new one.
    fn resume(&self, pass: &Pass<'_>, batch: usize, x: &Tensor<3>) -> Result<State, ModelError> {
        let kept = pass.cache.as_ref().map(|c| c.tensors.as_slice()).unwrap_or_default();
        let state = match kept {
            [Value::R2(h)] => State { h: h.clone(), c: None },
            [Value::R2(h), Value::R2(c)] => State { h: h.clone(), c: Some(c.clone()) },
            _ => return Ok(self.recurrent.start(batch, &x.device())),
        };
        match state.h.dims()[0] {
            same if same == batch => Ok(state),
            before => Err(ModelError::Input {
                stage: pass.stage.into(),
                expected: format!("the {before} sequences that were begun"),
                found: format!("a batch of {batch}"),
            }),
        }
    }

    /// Leaves the state at each sample's end in the cache, if there is one.
    fn keep(&self, pass: &mut Pass<'_>, states: &[State], lengths: Option<&[usize]>) {
        let Some(cache) = pass.cache.as_mut() else { return };
        let h = at_end(states.iter().map(|s| s.h.clone()).collect(), lengths);
        let c: Option<Vec<_>> = states.iter().map(|s| s.c.clone()).collect();
        let c = c.map(|steps| at_end(steps, lengths));
        cache.tensors = [Some(h), c].into_iter().flatten().map(Value::R2).collect();
        cache.position += states.len();
    }
}

/// Logits. `h_n` `[batch, hidden]` → `[batch, classes]`; `x` `[batch, sequence, hidden]` →
/// `[batch, sequence, vocabulary]`
#[derive(Module, Debug)]
struct Decoder {
    /// `[logits, hidden]`
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Decoder {
    fn new(
        name: &str,
        [hidden, logits]: [usize; 2],
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let init = Init::FanIn(hidden);
        Ok(Self {
            weight: params.param(&format!("{name}.weight"), [logits, hidden], init)?,
            bias: params.param(&format!("{name}.bias"), [logits], init)?,
        })
    }
}

impl Block for Decoder {
    fn forward(
        &self,
        mut input: Activation,
        pass: &mut Pass<'_>,
    ) -> Result<Activation, ModelError> {
        let [_, hidden] = self.weight.dims();
        let (weight, bias) = (self.weight.val().transpose(), self.bias.val());
        let value = match input.take_optional(FINAL) {
            Some(end) => end,
            None => input.take(pass.stage, "x")?,
        };
        Ok(match value {
            Value::R2(x) if x.dims()[1] == hidden => {
                Value::R2(module::linear(x, weight, Some(bias)))
            }
            Value::R3(x) if x.dims()[2] == hidden => Value::R3(project(x, weight, Some(bias))),
            other => return Err(wrong(pass, format!("FP32 [..., {hidden}]"), &other)),
        }
        .into())
    }
}

fn with_length(activation: Activation, length: Option<Value>) -> Activation {
    match length {
        Some(length) => activation.with(LENGTH, length),
        None => activation,
    }
}

/// The lengths that a mask of `[batch, sequence]` says; padding is behind the tokens.
fn length_of(
    pass: &Pass<'_>,
    mask: Value,
    [batch, sequence]: [usize; 2],
) -> Result<Value, ModelError> {
    let mask = match mask {
        Value::I2(mask) if mask.dims() == [batch, sequence] => mask,
        other => return Err(wrong(pass, format!("{MASK} of INT64 [{batch}, {sequence}]"), &other)),
    };
    let values: Vec<i64> = mask.to_data().iter::<i64>().collect();
    let padded_behind = |row: &[i64]| {
        row.windows(2).all(|pair| pair[0] >= pair[1]) && row[0] == 1 && row[sequence - 1] >= 0
    };
    if let Some(bad) = values.chunks(sequence).position(|row| !padded_behind(row)) {
        return Err(ModelError::Input {
            stage: pass.stage.into(),
            expected: format!("{MASK} of ones, then zeros behind them"),
            found: format!("something else for sample {bad}"),
        });
    }
    Ok(Value::I1(mask.sum_dim(1).reshape([batch])))
}

/// Host copy of `length`, each of which lies in the sequence.
fn read_lengths(
    pass: &Pass<'_>,
    value: &Value,
    [batch, sequence]: [usize; 2],
) -> Result<Vec<usize>, ModelError> {
    let lengths: Vec<i64> = match value {
        Value::I1(t) if t.dims()[0] == batch => t.to_data().iter::<i64>().collect(),
        other => return Err(wrong(pass, format!("{LENGTH} of INT64 [{batch}]"), other)),
    };
    match lengths.iter().find(|l| !(1..=sequence as i64).contains(*l)) {
        Some(bad) => Err(ModelError::Input {
            stage: pass.stage.into(),
            expected: format!("{LENGTH} in 1..={sequence}"),
            found: bad.to_string(),
        }),
        None => Ok(lengths.into_iter().map(|l| l as usize).collect()),
    }
}

fn check_extents(
    pass: &Pass<'_>,
    [batch, sequence]: [usize; 2],
    longest: usize,
) -> Result<(), ModelError> {
    if batch > 0 && (1..=longest).contains(&sequence) {
        return Ok(());
    }
    Err(ModelError::Input {
        stage: pass.stage.into(),
        expected: format!("at least one sequence, of 1 to {longest} positions"),
        found: format!("{batch} of {sequence}"),
    })
}

fn wrong(pass: &Pass<'_>, expected: String, found: &Value) -> ModelError {
    let kind = if found.is_int() { "INT64" } else { "FP32" };
    let found = format!("{kind} of shape {:?}", found.dims());
    ModelError::Input { stage: pass.stage.into(), expected, found }
}

#[cfg(test)]
#[path = "rnn_tests.rs"]
mod tests;
