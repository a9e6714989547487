//! BERT: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
//! Understanding" (2018), with the names and layouts of Hugging Face's `BertModel` and
//! `BertForSequenceClassification`. Its sentence-embedding form is that of sentence-transformers
//! (Reimers and Gurevych 2019), MiniLM (Wang et al. 2020) among them: the same encoder, narrower.
//!
//! ```text
//! classify   embeddings → layer-0 → … → layer-N → pooler → classifier
//! embed      embeddings → layer-0 → … → layer-N → pooling
//! encode     embeddings → layer-0 → … → layer-N
//! ```
//!
//! Two tensors cross a cut behind the embeddings or between two layers: the hidden states `x`
//! `[batch, sequence, hidden]`, and the padding mask `attention_mask` INT64 `[batch, sequence]`, which
//! every layer needs and nothing learns from. Behind the pooler it is one vector a sample, and the mask
//! stays behind. There is no dropout: fine-tuning is Hugging Face's with `*_dropout_prob = 0`.

mod encoder;
mod heads;

use self::{
    encoder::{Embeddings, Layer},
    heads::{Classifier, Pooler, SentencePooling},
};
use super::{ModelFamily, Port, StagePlan, spec::sizes_in_range};

/// What comes after the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BertHead {
    /// Pooler and classifier of `BertForSequenceClassification`: `logits` `[batch, classes]`.
    Classify,
    /// Mean of the tokens that are no padding, of length 1: `sentence_embedding` `[batch, hidden]`.
    Embed,
    /// The encoder alone: `last_hidden_state` `[batch, sequence, hidden]`.
    Encode,
}

/// Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016), by Hugging Face's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum BertAct {
    /// By the error function, exactly.
    #[default]
    #[serde(rename = "gelu")]
    Gelu,
    /// By tanh, as Google's first code had it.
    #[serde(rename = "gelu_new")]
    GeluNew,
}

/// Sizes of a BERT, by the names of its Hugging Face configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertSpec {
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Longest sequence.
    pub max_position_embeddings: usize,
    #[serde(default = "type_vocab_size")]
    pub type_vocab_size: usize,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default)]
    pub hidden_act: BertAct,
    pub head: BertHead,
    /// Number of logits of the head `classify`; the others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
}

fn type_vocab_size() -> usize {
    2
}

fn layer_norm_eps() -> f64 {
    1e-12
}

/// Token ids, as Hugging Face names them.
const IDS: &str = "input_ids";
/// 1 for a token, 0 for padding.
const MASK: &str = "attention_mask";
/// Which of two texts a token belongs to.
const TYPES: &str = "token_type_ids";

impl BertSpec {
    /// What crosses a cut inside the encoder.
    fn hidden_states(&self) -> Vec<Port> {
        let longest = self.max_position_embeddings;
        vec![
            Port::sequence("x", longest, &[self.hidden_size]),
            Port::tokens(MASK, longest).below(2),
        ]
    }

    fn embeddings_plan(&self) -> StagePlan {
        let spec = self.clone();
        StagePlan::new("embeddings", self.hidden_states(), 0, move |params| {
            Embeddings::new(&spec, params)
        })
    }

    fn layer_plan(&self, layer: usize) -> StagePlan {
        let (sequence, hidden) = (self.max_position_embeddings, self.hidden_size);
        let projections = 2 * sequence * hidden * (4 * hidden + 2 * self.intermediate_size);
        let attention = 2 * 2 * sequence * sequence * hidden;
        // Nobody behind the last layer of a bare encoder asks for the mask.
        let ends = self.head == BertHead::Encode && layer + 1 == self.num_hidden_layers;
        let mut outputs = self.hidden_states();
        outputs.truncate(if ends { 1 } else { 2 });
        let spec = self.clone();
        let name = format!("layer-{layer}");
        StagePlan::new(name, outputs, projections + attention, move |params| {
            Layer::new(&spec, layer, ends, params)
        })
    }

    fn head_plans(&self) -> Vec<StagePlan> {
        let (hidden, classes) = (self.hidden_size, self.classes.unwrap_or(0));
        let vector = |width: usize| vec![Port::float("x", &[width])];
        match self.head {
            BertHead::Classify => vec![
                StagePlan::new("pooler", vector(hidden), 2 * hidden * hidden, move |params| {
                    Pooler::new(hidden, params)
                }),
                StagePlan::new(
                    "classifier",
                    vector(classes),
                    2 * hidden * classes,
                    move |params| Classifier::new(hidden, classes, params),
                ),
            ],
            BertHead::Embed => {
                vec![StagePlan::new("pooling", vector(hidden), 0, move |_| {
                    Ok(SentencePooling::new(hidden))
                })]
            }
            BertHead::Encode => Vec::new(),
        }
    }
}

impl ModelFamily for BertSpec {
    fn inputs(&self) -> Vec<Port> {
        let tokens = |name| Port::tokens(name, self.max_position_embeddings);
        vec![
            tokens(IDS).below(self.vocab_size),
            tokens(MASK).below(2).optional(),
            tokens(TYPES).below(self.type_vocab_size).optional(),
        ]
    }

    fn outputs(&self) -> Vec<Port> {
        let (hidden, longest) = (self.hidden_size, self.max_position_embeddings);
        vec![match self.head {
            BertHead::Classify => Port::float("logits", &[self.classes.unwrap_or(0)]),
            BertHead::Embed => Port::float("sentence_embedding", &[hidden]),
            BertHead::Encode => Port::sequence("last_hidden_state", longest, &[hidden]),
        }]
    }

    fn check(&self) -> Result<(), String> {
        let Self { hidden_size, num_hidden_layers, num_attention_heads, layer_norm_eps, .. } =
            *self;
        let sizes = [self.vocab_size, self.intermediate_size, self.max_position_embeddings];
        let sizes = sizes.into_iter().chain([hidden_size, num_attention_heads]);
        sizes_in_range(sizes.chain([self.type_vocab_size]).chain(self.classes))?;
        if !(1..=1024).contains(&num_hidden_layers) {
            return Err(format!(
                "num_hidden_layers {num_hidden_layers} is out of range (1..=1024)"
            ));
        }
        if hidden_size % num_attention_heads != 0 {
            return Err(format!(
                "hidden_size {hidden_size} must be divisible by num_attention_heads \
                 {num_attention_heads}"
            ));
        }
        if !(layer_norm_eps > 0.0 && layer_norm_eps < 1.0) {
            return Err(format!("layer_norm_eps {layer_norm_eps} is out of range (0 to 1)"));
        }
        match (self.head, self.classes) {
            (BertHead::Classify, None) => Err("head classify needs classes".into()),
            (BertHead::Embed | BertHead::Encode, Some(_)) => {
                Err("classes is for the head classify only".into())
            }
            _ => Ok(()),
        }
    }

    fn stages(&self) -> Vec<StagePlan> {
        let layers = (0..self.num_hidden_layers).map(|i| self.layer_plan(i));
        std::iter::once(self.embeddings_plan()).chain(layers).chain(self.head_plans()).collect()
    }

    fn prefixes(&self) -> &'static [&'static str] {
        // A file saved from the `BertModel` itself has `embeddings.word_embeddings.weight`.
        &["bert."]
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
