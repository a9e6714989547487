//! LSTM and GRU against `torch.nn.LSTM` and `torch.nn.GRU`: padded samples against packed sequences,
//! language models, generation with the states that stay on both sides of the cut.

use cleave_shared::{
    model::{
        Cell, LossKind, ModelSpec, OptimizerSpec, RnnSpec, Segment, SegmentCache, SequenceTask,
        loss::argmax,
    },
    tensor::HostTensor,
    wire::NamedTensors,
};
use serde_json::json;

use crate::{
    reference::{Reference, assert_close, at},
    splits::{SplitTraining, infer, segment, shipped},
};

const SCRIPT: &str = "rnn_reference.py";
const STEPS: usize = 20;
const LONGEST: usize = 12;
const LOGITS: f64 = 1e-4;
const TRAINING: f64 = 1e-3;

const SGD: OptimizerSpec =
    OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0 };
const ADAM: OptimizerSpec = OptimizerSpec::Adam {
    learning_rate: 0.02,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weight_decay: 0.0,
};

/// A classifier of tokens.
fn classifier(cell: Cell, layers: usize) -> RnnSpec {
    RnnSpec {
        cell,
        task: SequenceTask::Classify,
        vocabulary: Some(40),
        embedding: Some(16),
        features: None,
        hidden: 24,
        layers,
        classes: Some(4),
        longest: LONGEST,
    }
}

fn language_model(cell: Cell, layers: usize) -> RnnSpec {
    let task = SequenceTask::LanguageModel;
    RnnSpec { task, classes: None, ..classifier(cell, layers) }
}

fn reference(spec: &RnnSpec, optimizer: &OptimizerSpec) -> Reference {
    let case = json!({
        "model": ModelSpec::Rnn(spec.clone()), "loss": LossKind::CrossEntropy,
        "optimizer": optimizer, "batch": 6, "steps": STEPS, "length": LONGEST,
    });
    Reference::make(SCRIPT, &case)
}

/// The inputs of one step by the names that the model has for them.
fn inputs(spec: &RnnSpec, reference: &Reference, step: usize) -> NamedTensors {
    let input = at(reference.tensor("input"), step);
    match spec.task {
        SequenceTask::LanguageModel => vec![("x".into(), input)],
        SequenceTask::Classify => {
            let name = if spec.features.is_some() { "x" } else { "input_ids" };
            let length = at(reference.tensor("length"), step);
            vec![(name.into(), input), ("length".into(), length)]
        }
    }
}

/// Logits, and the losses of the training, at every split point.
fn is_pytorchs(spec: RnnSpec, optimizer: OptimizerSpec) {
    let reference = reference(&spec, &optimizer);
    let (file, model) = (reference.weights(), ModelSpec::Rnn(spec.clone()));
    let flops: u64 = model.stages().iter().map(|s| s.flops).sum();
    assert_eq!(reference.facts["flops"], flops, "as PyTorch counts them");
    let input = inputs(&spec, &reference, 0);
    let whole = segment(&model, &file, 0..model.stage_count(), false).infer(&input).unwrap();
    for split in 0..=model.stage_count() {
        let output = infer(&model, &file, split, &input);
        assert_eq!(output, whole, "bit for bit, split at {split}");
        let output = &output[0].1;
        let what = format!("split at {split}: logits");
        let logits = assert_close(&what, output, reference.tensor("output"), LOGITS);

        let (loss, optimizer) = (LossKind::CrossEntropy, optimizer.clone());
        let mut training = SplitTraining::new(&model, &file, split, loss, optimizer);
        let step = |i| {
            let label = at(reference.tensor("label"), i);
            training.step(&inputs(&spec, &reference, i), &label)
        };
        let losses: Vec<f32> = (0..STEPS).map(step).collect();
        let losses = HostTensor::from_f32(vec![STEPS], &losses);
        let what = format!("split at {split}: losses");
        let losses = assert_close(&what, &losses, reference.tensor("losses"), TRAINING);
        let weights = training.weights();
        let expected = reference.group("final/");
        assert_eq!(weights.len(), expected.len());
        let weights = weights.iter().map(|(name, tensor)| {
            assert_close(&format!("{what}: {name}"), tensor, expected[name.as_str()], TRAINING)
        });
        let weights = weights.fold(0.0, f64::max);
        println!(
            "split at {split}: logits {logits:.1e}, losses {losses:.1e}, weights {weights:.1e}"
        );
    }
}

#[test]
fn a_classifier_with_one_lstm_is_pytorchs() {
    is_pytorchs(classifier(Cell::Lstm, 1), SGD);
}

#[test]
fn a_classifier_with_three_lstms_is_pytorchs() {
    is_pytorchs(classifier(Cell::Lstm, 3), ADAM);
}

#[test]
fn a_classifier_with_one_gru_is_pytorchs() {
    is_pytorchs(classifier(Cell::Gru, 1), ADAM);
}

#[test]
fn a_classifier_with_three_grus_is_pytorchs() {
    is_pytorchs(classifier(Cell::Gru, 3), SGD);
}

#[test]
fn a_classifier_of_vectors_is_pytorchs() {
    let spec = classifier(Cell::Gru, 2);
    let spec = RnnSpec { vocabulary: None, embedding: None, features: Some(9), ..spec };
    is_pytorchs(spec, ADAM);
}

#[test]
fn a_language_model_of_one_lstm_is_pytorchs() {
    is_pytorchs(language_model(Cell::Lstm, 1), ADAM);
}

#[test]
fn a_language_model_of_three_lstms_is_pytorchs() {
    is_pytorchs(language_model(Cell::Lstm, 3), SGD);
}

#[test]
fn a_language_model_of_one_gru_is_pytorchs() {
    is_pytorchs(language_model(Cell::Gru, 1), SGD);
}

#[test]
fn a_language_model_of_three_grus_is_pytorchs() {
    is_pytorchs(language_model(Cell::Gru, 3), ADAM);
}

/// Greedy tokens behind the prompt. After the prompt each token ships one position.
fn generate(head: &Segment, tail: &Segment, prompt: &HostTensor, count: usize) -> Vec<i64> {
    let (mut here, mut there) = (SegmentCache::default(), SegmentCache::default());
    let (mut input, mut tokens) = (prompt.clone(), Vec::new());
    while tokens.len() < count {
        let sent = head.infer_next(&vec![("x".into(), input.clone())], &mut here).unwrap();
        assert_eq!(sent[0].1.shape()[..2], *input.shape(), "its own positions and no others");
        let logits = tail.infer_next(&shipped(sent), &mut there).unwrap().remove(0).1;
        let (values, vocabulary) = (logits.to_f32().unwrap(), logits.shape()[2]);
        let token = argmax(&values[values.len() - vocabulary..]) as i64;
        tokens.push(token);
        input = HostTensor::from_i64(vec![1, 1], &[token]);
    }
    tokens
}

#[test]
fn generation_is_pytorchs_token_for_token() {
    for cell in [Cell::Lstm, Cell::Gru] {
        let spec = language_model(cell, 3);
        let spec = ModelSpec::Rnn(spec);
        let reference = Reference::make(SCRIPT, &json!({ "model": spec, "generate": 64 }));
        let expected = reference.tensor("generated").to_i64().unwrap();
        let mut different = expected.clone();
        different.sort_unstable();
        different.dedup();
        assert!(expected.len() == 64 && different.len() > 5, "worth comparing: {expected:?}");
        let (file, count) = (reference.weights(), spec.stage_count());
        for split in 0..=count {
            let head = segment(&spec, &file, 0..split, false);
            let tail = segment(&spec, &file, split..count, false);
            let tokens = generate(&head, &tail, reference.tensor("prompt"), expected.len());
            assert_eq!(tokens, expected, "{cell:?} split at {split}");
        }
    }
}
