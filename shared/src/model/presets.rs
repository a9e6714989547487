//! Models by name: the sizes that papers and libraries give them.
//!
//! A name stands for a whole [`ModelSpec`] wherever a model is named, and means the same everywhere.

use super::{BertAct, BertHead, BertSpec, LenetSpec, MlpSpec, ModelSpec};

impl ModelSpec {
    /// All names that [`ModelSpec::builtin`] knows.
    pub const BUILTIN: &'static [&'static str] = &["mlp", "lenet", "bert"];

    /// The model with this name; none if there is no such name.
    pub fn builtin(name: &str) -> Option<ModelSpec> {
        Some(match name {
            "mlp" => Self::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![128], classes: 10 }),
            "lenet" => Self::Lenet(LenetSpec {
                input: [1, 8, 8],
                channels: vec![32, 64],
                hidden: vec![128],
                classes: 10,
            }),
            // bert-base-uncased, with the two classes that Hugging Face gives a new classifier.
            "bert" => Self::Bert(BertSpec {
                vocab_size: 30_522,
                hidden_size: 768,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                intermediate_size: 3072,
                max_position_embeddings: 512,
                type_vocab_size: 2,
                layer_norm_eps: 1e-12,
                hidden_act: BertAct::Gelu,
                head: BertHead::Classify,
                classes: Some(2),
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_model_that_can_be_built() {
        for name in ModelSpec::BUILTIN {
            let spec = ModelSpec::builtin(name).expect(name);
            assert_eq!(spec.check(), Ok(()), "{name}");
            assert!(spec.stage_count() > 0, "{name}");
        }
        assert_eq!(ModelSpec::builtin("LeNet"), None);
    }
}
