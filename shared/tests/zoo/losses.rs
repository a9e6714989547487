//! The losses over sequences against PyTorch's: values, and gradients at the logits.

use cleave_shared::{
    model::{LossKind, ModelSpec, OptimizerSpec, RnnSpec, SeededWeights, Segment},
    wire::NamedTensors,
};
use serde_json::json;

use crate::reference::{Reference, assert_close};

/// A tail without stages: what it is sent is the output, and the gradient is the loss's own.
fn only_the_loss() -> Segment {
    let spec: RnnSpec = serde_json::from_value(json!({
        "cell": "gru", "task": "language-model", "vocabulary": 7, "embedding": 1, "hidden": 1,
        "layers": 1, "longest": 5,
    }))
    .unwrap();
    let spec = ModelSpec::Rnn(spec);
    let count = spec.stage_count();
    Segment::build(&spec, count..count, &mut SeededWeights(1), true).unwrap()
}

#[test]
fn losses_over_sequences_are_pytorchs() {
    let reference = Reference::make("rnn_reference.py", &json!({ "losses": true }));
    let logits: NamedTensors = vec![("x".into(), reference.tensor("logits").clone())];
    let sgd = OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0 };
    let correct = reference.tensor("correct").to_i64().unwrap()[0] as u64;
    let kinds = [
        (LossKind::CrossEntropy, "cross-entropy", "label", correct),
        (LossKind::Mse, "mse", "target", 0),
    ];
    for (kind, name, label, correct) in kinds {
        let (mut tail, label) = (only_the_loss(), reference.tensor(label));
        let step = tail.tail_step(&logits, label, kind, &sgd, true).unwrap();
        let expected = reference.tensor(name).to_f32().unwrap()[0];
        assert!((step.loss - expected).abs() < 1e-6 * expected, "{name}: {}", step.loss);
        let gradient = reference.tensor(&format!("{name}-gradient"));
        assert_close(&format!("{name}: gradient"), &step.gradient[0].1, gradient, 1e-6);
        assert_eq!(step.correct, correct, "{name}");
    }
}
