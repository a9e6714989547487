//! BERT against Hugging Face's transformers, padded batches included.

use cleave_shared::{
    model::{BertAct, BertHead, BertSpec, LossKind, ModelSpec, Segment, WeightFile},
    tensor::HostTensor,
    wire::NamedTensors,
};
use serde_json::json;

use crate::{
    reference::{Reference, assert_close, at},
    splits::{STEPS, SplitTraining, adam, infer, segment, sgd},
};

const SCRIPT: &str = "bert_reference.py";
const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];
/// The head's output.
const INFERENCE: f64 = 1e-4;
/// Losses, and the weights after the training.
const TRAINING: f64 = 1e-3;

fn sizes(head: BertHead, hidden_act: BertAct) -> BertSpec {
    BertSpec {
        vocab_size: 97,
        hidden_size: 24,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        intermediate_size: 40,
        max_position_embeddings: 16,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_act,
        head,
        classes: (head == BertHead::Classify).then_some(3),
    }
}

pub fn classifier() -> ModelSpec {
    ModelSpec::Bert(sizes(BertHead::Classify, BertAct::Gelu))
}

pub fn reference(spec: &ModelSpec, steps: usize) -> Reference {
    let optimizers = json!({ "sgd": sgd(0.01), "adam": adam(0.001) });
    let case = json!({ "model": spec, "seed": 5, "steps": steps, "optimizers": optimizers });
    Reference::make(SCRIPT, &case)
}

fn inputs(reference: &Reference) -> NamedTensors {
    INPUTS.iter().map(|name| (name.to_string(), reference.tensor(name).clone())).collect()
}

/// Inference at every split point, from the files that `save_pretrained` wrote.
fn infers_alike(spec: &ModelSpec, reference: &Reference) {
    assert_eq!(spec.check(), Ok(()));
    let flops: u64 = spec.stages().iter().map(|s| s.flops).sum();
    assert_eq!(reference.facts["flops"], flops, "as PyTorch counts them");
    let (file, input) = (reference.weights(), inputs(reference));
    let whole = segment(spec, &file, 0..spec.stage_count(), false).infer(&input).unwrap();
    let name = &spec.outputs()[0].name;
    let worst = assert_close(name, &whole[0].1, reference.tensor("output"), INFERENCE);
    println!("{name}: {worst:.1e}");
    for split in 0..=spec.stage_count() {
        assert_eq!(infer(spec, &file, split, &input), whole, "bit for bit, split at {split}");
    }
}

fn trains_alike(spec: &ModelSpec, reference: &Reference, split: usize, name: &str) {
    let optimizer = if name == "sgd" { sgd(0.01) } else { adam(0.001) };
    let (file, loss) = (reference.weights(), LossKind::CrossEntropy);
    let mut training = SplitTraining::new(spec, &file, split, loss, optimizer);
    let what = format!("split at {split}, {name}");
    let inputs_of = |i| {
        let of = |name: &&str| (name.to_string(), at(reference.tensor(&format!("step_{name}")), i));
        INPUTS.iter().map(of).collect()
    };
    let worst_loss = training.losses_are_alike(&what, reference, name, inputs_of, TRAINING);
    let prefix = format!("{name}/final/");
    let expected = reference.group(&prefix);
    let weights = training.weights();
    assert_eq!(weights.len(), expected.len(), "every parameter");
    // A bias of the keys moves all scores of a row alike, which softmax does not notice: its gradient is
    // rounding noise, and Adam takes full steps on noise.
    let noise = |parameter: &str| name == "adam" && parameter.ends_with("self.key.bias");
    let compare = |(parameter, tensor): &(String, HostTensor)| {
        let what = format!("{what}: {parameter}");
        assert_close(&what, tensor, expected[parameter.as_str()], TRAINING)
    };
    let compared = weights.iter().filter(|(parameter, _)| !noise(parameter));
    let worst_weight = compared.map(compare).fold(0.0, f64::max);
    let logits = training.infer(&inputs(reference));
    let expected = reference.tensor(&format!("{name}/output"));
    let worst_logit = assert_close(&format!("{what}: logits"), &logits[0].1, expected, TRAINING);
    println!(
        "{what}: losses {worst_loss:.1e}, weights {worst_weight:.1e}, logits {worst_logit:.1e}"
    );
}

#[test]
fn a_classifier_is_transformers() {
    let spec = classifier();
    let reference = reference(&spec, STEPS);
    infers_alike(&spec, &reference);
    for split in 0..=spec.stage_count() {
        trains_alike(&spec, &reference, split, "sgd");
        trains_alike(&spec, &reference, split, "adam");
    }
    gamma_and_beta_are_read(&spec, &reference);
}

#[test]
fn a_sentence_embedding_is_sentence_transformers() {
    let spec = ModelSpec::Bert(sizes(BertHead::Embed, BertAct::GeluNew));
    // Saved from a BertModel, whose names have no prefix, as MiniLM's files.
    infers_alike(&spec, &reference(&spec, 0));
}

#[test]
fn a_bare_encoder_is_transformers() {
    let spec = ModelSpec::Bert(sizes(BertHead::Encode, BertAct::Gelu));
    let reference = reference(&spec, 0);
    infers_alike(&spec, &reference);
    what_is_left_out_is_ones_and_zeros(&spec, &reference);
    a_file_of_another_model_is_an_error_by_name(&reference);
}

fn what_is_left_out_is_ones_and_zeros(spec: &ModelSpec, reference: &Reference) {
    let file = reference.weights();
    let ids = HostTensor::from_i64(vec![2, 3], &[5, 96, 0, 7, 8, 9]);
    let ids = ("input_ids".to_string(), ids);
    let full =
        |name: &str, value| (name.to_string(), HostTensor::from_i64(vec![2, 3], &[value; 6]));
    let all = vec![ids.clone(), full("attention_mask", 1), full("token_type_ids", 0)];
    let expected = infer(spec, &file, 2, &all);
    assert_eq!(infer(spec, &file, 2, &vec![ids]), expected);
}

/// As the files of the first BERTs have them.
fn gamma_and_beta_are_read(spec: &ModelSpec, reference: &Reference) {
    let input = inputs(reference);
    let expected = infer(spec, &reference.weights(), 2, &input);
    // The names of google-bert/bert-base-uncased, each as long as the new one with blanks behind.
    let path = reference.weights_path();
    let whole = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&whole[8..8 + length]).unwrap();
    let renamed = header
        .replace("LayerNorm.weight\"", "LayerNorm.gamma\" ")
        .replace("LayerNorm.bias\"", "LayerNorm.beta\"");
    assert_ne!(renamed, header);
    let old = [&whole[..8], renamed.as_bytes(), &whole[8 + length..]].concat();
    std::fs::write(&path, old).unwrap();
    assert_eq!(infer(spec, &reference.weights(), 2, &input), expected);
}

fn a_file_of_another_model_is_an_error_by_name(bare: &Reference) {
    let spec = ModelSpec::Bert(sizes(BertHead::Classify, BertAct::Gelu));
    let load = |spec: &ModelSpec| {
        let file = std::sync::Arc::new(WeightFile::open(&bare.weights_path()).unwrap());
        let mut source = file.source(spec.prefixes());
        let built = Segment::build(spec, 0..spec.stage_count(), &mut source, false);
        built.err().expect("refused").to_string()
    };
    let error = load(&spec);
    let missing = "weight bert.pooler.dense.weight: expected shape [24, 24], found no such tensor";
    assert!(error.starts_with(missing), "{error}");
    let wider = BertSpec { intermediate_size: 48, ..sizes(BertHead::Encode, BertAct::Gelu) };
    let error = load(&ModelSpec::Bert(wider));
    let misshapen = "weight bert.encoder.layer.0.intermediate.dense.weight: expected shape [48, 24], \
                     found [40, 24]";
    assert!(error.starts_with(misshapen), "{error}");
}
