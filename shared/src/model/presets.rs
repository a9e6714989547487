//! Models by name: the sizes that papers and libraries give them.
//!
//! A name stands for a whole [`ModelSpec`] wherever a model is named, and means the same everywhere.

use super::{
    AlexnetSpec, BertAct, BertHead, BertSpec, Cell, LenetSpec, LinearRegressionSpec, MlpSpec,
    MobilenetV2Spec, ModelSpec, ResnetBlock, ResnetSpec, RnnSpec, VggSpec,
};

impl ModelSpec {
    /// All names that [`ModelSpec::builtin`] knows.
    pub const BUILTIN: &'static [&'static str] = &[
        "mlp",
        "lenet",
        "alexnet",
        "vgg16",
        "resnet18",
        "resnet50",
        "mobilenetv2",
        "linear-regression",
        "lstm",
        "gru",
        "bert",
    ];

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
            "alexnet" => Self::Alexnet(AlexnetSpec {
                input: IMAGENET,
                channels: [64, 192, 384, 256, 256],
                hidden: [4096, 4096],
                classes: 1000,
            }),
            "vgg16" => {
                let groups = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)];
                let channels = groups.iter().map(|&(channels, n)| vec![channels; n]).collect();
                let hidden = [4096, 4096];
                Self::Vgg(VggSpec { input: IMAGENET, channels, hidden, classes: 1000 })
            }
            "resnet18" => resnet(ResnetBlock::Basic, [2, 2, 2, 2]),
            "resnet50" => resnet(ResnetBlock::Bottleneck, [3, 4, 6, 3]),
            "mobilenetv2" => Self::MobilenetV2(MobilenetV2Spec {
                input: IMAGENET,
                width: 1.0,
                blocks: MobilenetV2Spec::PAPER.to_vec(),
                classes: 1000,
            }),
            "linear-regression" => Self::LinearRegression(LinearRegressionSpec {
                features: 1,
                outputs: 1,
                mean: Vec::new(),
                std: Vec::new(),
            }),
            "lstm" => Self::Rnn(RnnSpec::of_bytes(Cell::Lstm)),
            "gru" => Self::Rnn(RnnSpec::of_bytes(Cell::Gru)),
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

/// The size that ImageNet's images are cropped to.
const IMAGENET: [usize; 3] = [3, 224, 224];

fn resnet(block: ResnetBlock, layers: [usize; 4]) -> ModelSpec {
    let layers = layers.to_vec();
    ModelSpec::Resnet(ResnetSpec { input: IMAGENET, block, layers, width: 64, classes: 1000 })
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
