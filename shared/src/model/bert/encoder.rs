//! The encoder: embeddings, and layers of self-attention and feed-forward, each followed by a residual
//! connection and a norm (post-norm, as in the paper).

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, activation::softmax, module::embedding},
};

use super::{BertAct, BertSpec, IDS, MASK, TYPES};
use crate::{
    kernels::{Form, gelu},
    model::{Activation, Block, Init, LayerNorm, Linear, ModelError, Norm, Params, Pass, Value},
};

/// Standard deviation of new weights: `initializer_range` of every published BERT.
const STD: f32 = 0.02;

/// Token, position and token-type tables, summed and normalised.
///
/// `input_ids`, `attention_mask`, `token_type_ids` INT64 `[batch, sequence]` → `x`
/// `[batch, sequence, hidden]` and `attention_mask`. A mask that is left out is all ones, token types
/// that are left out are all 0.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// `[vocabulary, hidden]`
    words: Param<Tensor<2>>,
    /// `[positions, hidden]`
    positions: Param<Tensor<2>>,
    /// `[types, hidden]`
    types: Param<Tensor<2>>,
    norm: LayerNorm,
}

impl Embeddings {
    pub fn new(spec: &BertSpec, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let hidden = spec.hidden_size;
        let mut table = |name: &str, rows: usize| {
            let name = format!("bert.embeddings.{name}.weight");
            params.param(&name, [rows, hidden], Init::Normal(STD))
        };
        Ok(Self {
            words: table("word_embeddings", spec.vocab_size)?,
            positions: table("position_embeddings", spec.max_position_embeddings)?,
            types: table("token_type_embeddings", spec.type_vocab_size)?,
            norm: norm("bert.embeddings.LayerNorm", spec, params)?,
        })
    }
}

impl Block for Embeddings {
    fn forward(
        &self,
        mut input: Activation,
        pass: &mut Pass<'_>,
    ) -> Result<Activation, ModelError> {
        let stage = pass.stage;
        let ids = input.take(stage, IDS)?;
        let extents = ids.dims();
        let ids = integers(stage, IDS, ids, &extents, self.words.dims()[0])?;
        let [batch, sequence] = ids.dims();
        let most = self.positions.dims()[0];
        if batch == 0 || !(1..=most).contains(&sequence) {
            let expected = format!("{IDS} [batch, sequence] with sequence 1 to {most}");
            return Err(refused(stage, expected, &extents));
        }
        let mut optional = |name: &str, bound: usize| {
            let value = input.take_optional(name);
            value.map(|v| integers(stage, name, v, &extents, bound)).transpose()
        };
        let types = optional(TYPES, self.types.dims()[0])?;
        let mask = optional(MASK, 2)?;
        if !input.names().is_empty() {
            let expected = format!("{IDS}, {MASK} and {TYPES} only");
            let found = format!("{:?} too", input.names());
            return Err(ModelError::Input { stage: stage.into(), expected, found });
        }
        let device = ids.device();
        let types = types.unwrap_or_else(|| Tensor::zeros([batch, sequence], &device));
        let mask = mask.unwrap_or_else(|| Tensor::ones([batch, sequence], &device));
        let places = self.positions.val().narrow(0, 0, sequence).unsqueeze();
        let x = embedding(self.words.val(), ids) + embedding(self.types.val(), types) + places;
        Ok(Activation::single(Value::R3(self.norm.forward(x))).with(MASK, Value::I2(mask)))
    }
}

/// One encoder layer. `x` `[batch, sequence, hidden]` and `attention_mask` → the same, or `x` alone.
#[derive(Module, Debug)]
pub struct Layer {
    attention: SelfAttention,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    #[module(skip)]
    act: BertAct,
    /// Whether the mask ends here.
    ends: bool,
}

impl Layer {
    pub fn new(
        spec: &BertSpec,
        layer: usize,
        ends: bool,
        params: &mut Params<'_>,
    ) -> Result<Self, ModelError> {
        let (hidden, wide) = (spec.hidden_size, spec.intermediate_size);
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        Ok(Self {
            attention: SelfAttention::new(&name("attention.self"), spec, params)?,
            attention_output: dense(&name("attention.output.dense"), [hidden; 2], params)?,
            attention_norm: norm(&name("attention.output.LayerNorm"), spec, params)?,
            intermediate: dense(&name("intermediate.dense"), [hidden, wide], params)?,
            output: dense(&name("output.dense"), [wide, hidden], params)?,
            output_norm: norm(&name("output.LayerNorm"), spec, params)?,
            act: spec.hidden_act,
            ends,
        })
    }
}

impl Block for Layer {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let (x, mask) = hidden_states(pass.stage, input, self.output_norm.width())?;
        let attended = self.attention.forward(x.clone(), mask.clone());
        let x = self.attention_norm.forward(x + self.attention_output.forward(attended));
        let wide = self.intermediate.forward(x.clone());
        let wide = match self.act {
            BertAct::Gelu => gelu(wide, Form::Erf),
            BertAct::GeluNew => gelu(wide, Form::Tanh),
        };
        let x = self.output_norm.forward(x + self.output.forward(wide));
        let x = Activation::single(Value::R3(x));
        Ok(if self.ends { x } else { x.with(MASK, Value::I2(mask)) })
    }
}

/// Scaled dot-product attention of every token to every other that is no padding (Vaswani et al. 2017).
#[derive(Module, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}

impl SelfAttention {
    fn new(name: &str, spec: &BertSpec, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let mut part = |part: &str| dense(&format!("{name}.{part}"), [spec.hidden_size; 2], params);
        let (query, key, value) = (part("query")?, part("key")?, part("value")?);
        Ok(Self { query, key, value, heads: spec.num_attention_heads })
    }

    /// x `[batch, sequence, hidden]`, mask `[batch, sequence]` → `[batch, sequence, hidden]`
    fn forward(&self, x: Tensor<3>, mask: Tensor<2, Int>) -> Tensor<3> {
        let [batch, sequence, hidden] = x.dims();
        let width = hidden / self.heads;
        // [batch, heads, sequence, width]
        let of = |layer: &Linear| {
            let y = layer.forward(x.clone());
            y.reshape([batch, sequence, self.heads, width]).swap_dims(1, 2)
        };
        let (query, key, value) = (of(&self.query), of(&self.key), of(&self.value));
        let scores = query.matmul(key.swap_dims(2, 3)).div_scalar((width as f32).sqrt());
        let weights = softmax(scores + padding_bias(mask), 3);
        weights.matmul(value).swap_dims(1, 2).reshape([batch, sequence, hidden])
    }
}

/// Added to the scores: 0 at a token, and at padding the least finite number, whose exponential is 0.
/// A row that is all padding stays finite. `[batch, sequence]` → `[batch, 1, 1, sequence]`
fn padding_bias(mask: Tensor<2, Int>) -> Tensor<4> {
    let [batch, sequence] = mask.dims();
    mask.float().sub_scalar(1.0).mul_scalar(f32::MAX).reshape([batch, 1, 1, sequence])
}

pub fn dense(
    name: &str,
    features: [usize; 2],
    params: &mut Params<'_>,
) -> Result<Linear, ModelError> {
    Linear::new(name, features, Init::Normal(STD), params)
}

fn norm(name: &str, spec: &BertSpec, params: &mut Params<'_>) -> Result<LayerNorm, ModelError> {
    LayerNorm::new(name, spec.hidden_size, spec.layer_norm_eps, params)
}

/// The hidden states `[batch, sequence, hidden]` that reach a stage, and their padding mask.
pub fn hidden_states(
    stage: &str,
    mut input: Activation,
    hidden: usize,
) -> Result<(Tensor<3>, Tensor<2, Int>), ModelError> {
    let x = match input.take(stage, "x")? {
        Value::R3(x) if x.dims()[2] == hidden && !x.dims().contains(&0) => x,
        other => {
            let expected = format!("x: FP32 [batch, sequence, {hidden}]");
            return Err(refused(stage, expected, &other.dims()));
        }
    };
    let mask = input.take(stage, MASK)?;
    let mask = integers(stage, MASK, mask, &x.dims()[..2], 2)?;
    Ok((x, mask))
}

/// INT64 of these extents with values in `0..bound`: a lookup of another one would panic.
fn integers(
    stage: &str,
    name: &str,
    value: Value,
    extents: &[usize],
    bound: usize,
) -> Result<Tensor<2, Int>, ModelError> {
    let expected = || format!("{name}: INT64 [batch, sequence] below {bound}");
    let tensor = match value {
        Value::I2(tensor) if tensor.dims() == extents => tensor,
        other => return Err(refused(stage, expected(), &other.dims())),
    };
    let known = 0..bound as i64;
    match tensor.to_data().iter::<i64>().find(|v| !known.contains(v)) {
        Some(bad) => Err(ModelError::Input {
            stage: stage.into(),
            expected: expected(),
            found: bad.to_string(),
        }),
        None => Ok(tensor),
    }
}

fn refused(stage: &str, expected: String, found: &[usize]) -> ModelError {
    ModelError::Input { stage: stage.into(), expected, found: format!("shape {found:?}") }
}
