//! The Llama class: Touvron et al., "LLaMA" (2023) and its successors, with the names and layouts of
//! Hugging Face's `LlamaForCausalLM`.
//!
//! RMSNorm, rotary positions, grouped-query attention, SwiGLU (Shazeer 2020), no biases.
//! `embed → block-0 → … → block-N → head`; `[batch, sequence, hidden_size]` crosses every cut but the
//! first.

use burn::{
    module::Module,
    tensor::{Tensor, activation::silu},
};

use super::{
    Activation, Block, Init, Linear, ModelError, ModelFamily, Norm, Params, Pass, Port, RmsNorm,
    StagePlan, Value,
    decoder::{Embedding, Head, HeadNames, Heads, Rope, RopeScaling, attend, hidden_states},
    spec::sizes_in_range,
};

/// Sizes of a Llama, by the names of its Hugging Face configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaSpec {
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Heads of keys and values; fewer than the others is grouped-query attention.
    pub num_key_value_heads: usize,
    /// Features of a head; without it, `hidden_size / num_attention_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default = "rope_theta")]
    pub rope_theta: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the head's table is the embedding's. Such a model can be run, not trained: cut in two,
    /// the one tensor would have two owners.
    #[serde(default)]
    pub tied: bool,
}

fn rms_norm_eps() -> f64 {
    1e-5
}

fn rope_theta() -> f32 {
    10_000.0
}

impl LlamaSpec {
    fn heads(&self) -> Heads {
        Heads {
            query: self.num_attention_heads,
            key_value: self.num_key_value_heads,
            width: self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
            positions: self.max_position_embeddings,
        }
    }
}

impl ModelFamily for LlamaSpec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::tokens("input_ids", self.max_position_embeddings)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::sequence("logits", self.max_position_embeddings, &[self.vocab_size])]
    }

    fn check(&self) -> Result<(), String> {
        let Heads { query, key_value, width, positions } = self.heads();
        let sizes = [self.vocab_size, self.hidden_size, self.intermediate_size, positions];
        sizes_in_range(sizes.into_iter().chain([self.num_hidden_layers, query, key_value, width]))?;
        if query % key_value != 0 {
            return Err(format!(
                "num_attention_heads {query} must be divisible by num_key_value_heads {key_value}"
            ));
        }
        if width % 2 != 0 {
            return Err(format!("heads of {width} features cannot be rotated: an even number"));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta >= 1.0) {
            return Err(format!("rope_theta {} must be 1 or more", self.rope_theta));
        }
        self.rope_scaling.as_ref().map_or(Ok(()), RopeScaling::check)
    }

    fn check_training(&self) -> Result<(), String> {
        match self.tied {
            true => Err(super::decoder::TIED.into()),
            false => Ok(()),
        }
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["model."]
    }

    fn positions(&self) -> usize {
        self.max_position_embeddings
    }

    fn stages(&self) -> Vec<StagePlan> {
        let (vocabulary, hidden) = (self.vocab_size, self.hidden_size);
        let positions = self.max_position_embeddings;
        let states = || vec![Port::sequence("x", positions, &[hidden])];
        let embed = move |params: &mut Params<'_>| {
            Embedding::new("embed_tokens.weight", None, [vocabulary, hidden, positions], params)
        };
        let mut plans = vec![StagePlan::new("embed", states(), 0, embed)];
        let heads = self.heads();
        // q and o, k and v, gate, up and down.
        let attention = 2 * hidden * heads.width * (heads.query + heads.key_value);
        let products = attention + 3 * hidden * self.intermediate_size;
        let flops = 2 * positions * products + heads.flops();
        for i in 0..self.num_hidden_layers {
            let spec = self.clone();
            let block = move |params: &mut Params<'_>| LlamaBlock::new(&spec, i, params);
            let plan = StagePlan::new(format!("block-{i}"), states(), flops, block);
            plans.push(plan.caching(move |n| heads.cache_bytes(n)));
        }
        let (epsilon, tied) = (self.rms_norm_eps, self.tied);
        let head = move |params: &mut Params<'_>| {
            let norm = RmsNorm::new("norm", hidden, epsilon, params)?;
            let names = HeadNames { tied: "embed_tokens.weight", own: "lm_head.weight" };
            Head::new(norm, names, tied, [vocabulary, hidden], params)
        };
        let flops = 2 * positions * hidden * vocabulary;
        let logits = vec![Port::sequence("x", positions, &[vocabulary])];
        plans.push(StagePlan::new("head", logits, flops, head));
        plans
    }
}

/// Attention, then SwiGLU, each behind its norm and beside the residual.
/// `[batch, sequence, hidden_size]` → the same
#[derive(Module, Debug)]
struct LlamaBlock {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    hidden: usize,
    #[module(skip)]
    heads: Heads,
    #[module(skip)]
    rope: Rope,
}

impl LlamaBlock {
    fn new(spec: &LlamaSpec, i: usize, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let (hidden, wide, epsilon) = (spec.hidden_size, spec.intermediate_size, spec.rms_norm_eps);
        let heads = spec.heads();
        let (queries, keys) = (heads.query * heads.width, heads.key_value * heads.width);
        let mut linear = |part: &str, sizes: [usize; 2]| {
            Linear::plain(&format!("layers.{i}.{part}"), sizes, Init::Normal(0.02), params)
        };
        let [q_proj, k_proj, v_proj, o_proj] = [
            linear("self_attn.q_proj", [hidden, queries])?,
            linear("self_attn.k_proj", [hidden, keys])?,
            linear("self_attn.v_proj", [hidden, keys])?,
            linear("self_attn.o_proj", [queries, hidden])?,
        ];
        let [gate_proj, up_proj, down_proj] = [
            linear("mlp.gate_proj", [hidden, wide])?,
            linear("mlp.up_proj", [hidden, wide])?,
            linear("mlp.down_proj", [wide, hidden])?,
        ];
        let mut norm =
            |part: &str| RmsNorm::new(&format!("layers.{i}.{part}"), hidden, epsilon, params);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            gate_proj,
            up_proj,
            down_proj,
            hidden,
            heads,
            rope: Rope::new(heads.width, spec.rope_theta, spec.rope_scaling.as_ref()),
        })
    }

    fn attention(&self, x: Tensor<3>, pass: &mut Pass<'_>) -> Result<Tensor<3>, ModelError> {
        let parts = [&self.q_proj, &self.k_proj, &self.v_proj].map(|p| p.forward(x.clone()));
        Ok(self.o_proj.forward(attend(&self.heads, parts, Some(&self.rope), pass)?))
    }

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

impl Block for LlamaBlock {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let x = hidden_states(pass.stage, input, self.hidden)?;
        let x = x.clone() + self.attention(self.input_layernorm.forward(x), pass)?;
        let y = self.feed_forward(self.post_attention_layernorm.forward(x.clone()));
        Ok(Value::R3(x + y).into())
    }
}
