//! GPT-2: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), with the names
//! and layouts of Hugging Face's `GPT2LMHeadModel`.
//!
//! `embed → block-0 → … → block-N → head`; `[batch, sequence, n_embd]` crosses every cut but the first.

use burn::{module::Module, tensor::Tensor};

use super::{
    Activation, Block, Init, LayerNorm, Linear, ModelError, ModelFamily, Norm, Params, Pass, Port,
    StagePlan, Value,
    decoder::{Embedding, Head, HeadNames, Heads, attend, hidden_states},
    spec::sizes_in_range,
};
use crate::kernels::{Form, gelu};

/// Sizes of a GPT-2, by the names of its Hugging Face configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Spec {
    pub vocab_size: usize,
    /// Longest sequence.
    pub n_positions: usize,
    /// Width of the hidden states.
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    #[serde(default = "layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Whether the head's table is the embedding's, as in the published models. Such a model can be
    /// run, not trained: cut in two, the one tensor would have two owners.
    #[serde(default = "tied")]
    pub tied: bool,
}

fn layer_norm_epsilon() -> f64 {
    1e-5
}

fn tied() -> bool {
    true
}

impl Gpt2Spec {
    fn heads(&self) -> Heads {
        let (n, width) = (self.n_head, self.n_embd / self.n_head);
        Heads { query: n, key_value: n, width, positions: self.n_positions }
    }
}

impl ModelFamily for Gpt2Spec {
    fn inputs(&self) -> Vec<Port> {
        vec![Port::tokens("input_ids", self.n_positions)]
    }

    fn outputs(&self) -> Vec<Port> {
        vec![Port::sequence("logits", self.n_positions, &[self.vocab_size])]
    }

    fn check(&self) -> Result<(), String> {
        let Self { vocab_size, n_positions, n_embd, n_layer, n_head, .. } = *self;
        sizes_in_range([vocab_size, n_positions, n_embd, n_layer, n_head])?;
        if n_embd % n_head != 0 {
            return Err(format!("n_embd {n_embd} must be divisible by n_head {n_head}"));
        }
        Ok(())
    }

    fn check_training(&self) -> Result<(), String> {
        match self.tied {
            true => Err(super::decoder::TIED.into()),
            false => Ok(()),
        }
    }

    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer."]
    }

    fn is_input_major(&self, weight: &str) -> bool {
        ["c_attn.weight", "c_proj.weight", "c_fc.weight"].iter().any(|end| weight.ends_with(end))
    }

    fn positions(&self) -> usize {
        self.n_positions
    }

    fn stages(&self) -> Vec<StagePlan> {
        let (positions, hidden, vocabulary) = (self.n_positions, self.n_embd, self.vocab_size);
        let states = || vec![Port::sequence("x", positions, &[hidden])];
        let embed = move |params: &mut Params<'_>| {
            Embedding::new(
                "wte.weight",
                Some("wpe.weight"),
                [vocabulary, hidden, positions],
                params,
            )
        };
        let mut plans = vec![StagePlan::new("embed", states(), 0, embed)];
        let heads = self.heads();
        // c_attn, c_proj, c_fc and c_proj again.
        let flops = 2 * positions * 12 * hidden * hidden + heads.flops();
        for i in 0..self.n_layer {
            let spec = self.clone();
            let block = move |params: &mut Params<'_>| Gpt2Block::new(&spec, i, params);
            let plan = StagePlan::new(format!("block-{i}"), states(), flops, block);
            plans.push(plan.caching(move |n| heads.cache_bytes(n)));
        }
        let spec = self.clone();
        let head = move |params: &mut Params<'_>| {
            let norm = LayerNorm::new("ln_f", hidden, spec.layer_norm_epsilon, params)?;
            let names = HeadNames { tied: "wte.weight", own: "lm_head.weight" };
            Head::new(norm, names, spec.tied, [vocabulary, hidden], params)
        };
        let flops = 2 * positions * hidden * vocabulary;
        let logits = vec![Port::sequence("x", positions, &[vocabulary])];
        plans.push(StagePlan::new("head", logits, flops, head));
        plans
    }
}

/// Attention, then a feed-forward layer four times as wide, each behind its norm and beside the
/// residual. `[batch, sequence, n_embd]` → the same
#[derive(Module, Debug)]
struct Gpt2Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_c_proj: Linear,
    #[module(skip)]
    heads: Heads,
}

impl Gpt2Block {
    fn new(spec: &Gpt2Spec, i: usize, params: &mut Params<'_>) -> Result<Self, ModelError> {
        let (hidden, epsilon, heads) = (spec.n_embd, spec.layer_norm_epsilon, spec.heads());
        let init = Init::Normal(0.02);
        // Layers that end a residual branch start smaller, as in the paper.
        let ending = Init::Normal(0.02 / (2.0 * spec.n_layer as f32).sqrt());
        let name = |part: &str| format!("h.{i}.{part}");
        Ok(Self {
            ln_1: LayerNorm::new(&name("ln_1"), hidden, epsilon, params)?,
            c_attn: Linear::conv1d(&name("attn.c_attn"), [hidden, 3 * hidden], init, params)?,
            attn_c_proj: Linear::conv1d(&name("attn.c_proj"), [hidden, hidden], ending, params)?,
            ln_2: LayerNorm::new(&name("ln_2"), hidden, epsilon, params)?,
            c_fc: Linear::conv1d(&name("mlp.c_fc"), [hidden, 4 * hidden], init, params)?,
            mlp_c_proj: Linear::conv1d(&name("mlp.c_proj"), [4 * hidden, hidden], ending, params)?,
            heads,
        })
    }

    fn attention(&self, x: Tensor<3>, pass: &mut Pass<'_>) -> Result<Tensor<3>, ModelError> {
        let hidden = x.dims()[2];
        let qkv = self.c_attn.forward(x);
        let parts = [0, 1, 2].map(|i| qkv.clone().narrow(2, i * hidden, hidden));
        Ok(self.attn_c_proj.forward(attend(&self.heads, parts, None, pass)?))
    }
}

impl Block for Gpt2Block {
    fn forward(&self, input: Activation, pass: &mut Pass<'_>) -> Result<Activation, ModelError> {
        let hidden = self.heads.query * self.heads.width;
        let x = hidden_states(pass.stage, input, hidden)?;
        let x = x.clone() + self.attention(self.ln_1.forward(x), pass)?;
        let wide = gelu(self.c_fc.forward(self.ln_2.forward(x.clone())), Form::Tanh);
        Ok(Value::R3(x + self.mlp_c_proj.forward(wide)).into())
    }
}
