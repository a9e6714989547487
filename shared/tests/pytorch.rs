//! Split training against PyTorch: the same weights and batches must give the same numbers.
//!
//! This side trains and writes what it got; `tests/python/pytorch_reference.py` trains the same
//! model in PyTorch and compares.

use std::{collections::HashMap, fs, path::Path, process::Command};

use cleave_shared::{
    codec,
    data::{Batch, BatchPlan, DataSpec, Part, Split, gather},
    model::{
        LenetSpec, LossKind, MlpSpec, ModelSpec, OptimizerSpec, SeededWeights, Segment, Update,
    },
    session::{Schedule, Shape, clip_scale},
    tensor::{DType, HostTensor},
    wire::{self, NamedTensors},
};
use safetensors::{Dtype, tensor::TensorView};

const STEPS: u64 = 50;
/// Through 16 bits a sum whose last bit differs may be sent as its neighbour; in many steps training makes of that what
/// it likes, in PyTorch against itself as well.
const COARSE_STEPS: u64 = 8;
const BATCH: usize = 16;
const SEED: u64 = 11;

struct Case {
    name: &'static str,
    model: ModelSpec,
    split: usize,
    loss: LossKind,
    optimizer: OptimizerSpec,
    schedule: Schedule,
    clip: Option<f64>,
    micro_batches: usize,
    steps: u64,
    /// Of activations and of cut-layer gradients.
    codec: &'static str,
}

fn cases() -> Vec<Case> {
    let lenet = ModelSpec::Lenet(LenetSpec {
        input: [1, 8, 8],
        channels: vec![8, 16],
        hidden: vec![32],
        classes: 10,
    });
    let mlp = ModelSpec::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![48, 32], classes: 10 });
    let sgd = OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0 };
    let adam = OptimizerSpec::Adam {
        learning_rate: 0.005,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    let (entropy, mse) = (LossKind::CrossEntropy, LossKind::Mse);
    let case = |name, model: &ModelSpec, split, loss, optimizer: &OptimizerSpec| Case {
        name,
        model: model.clone(),
        split,
        loss,
        optimizer: optimizer.clone(),
        schedule: Schedule::default(),
        clip: None,
        micro_batches: 1,
        steps: STEPS,
        codec: "f32",
    };
    let decayed = OptimizerSpec::Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01 };
    let (learning_rate, beta1, beta2, epsilon) = (0.01, 0.9, 0.98, 1e-8);
    let adam_decayed =
        OptimizerSpec::Adam { learning_rate, beta1, beta2, epsilon, weight_decay: 0.02 };
    let adamw = OptimizerSpec::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay: 0.1 };
    let linear = Schedule { kind: Shape::Linear, warmup_steps: 0, floor: 0.0 };
    let cosine = Schedule { kind: Shape::Cosine, warmup_steps: 5, floor: 0.1 };
    let coarse = |codec, case| Case { codec, steps: COARSE_STEPS, ..case };
    vec![
        Case {
            schedule: cosine,
            clip: Some(0.5),
            micro_batches: 3,
            ..case("lenet-2-adamw-cosine-clip-micro", &lenet, 2, entropy, &adamw)
        },
        Case {
            schedule: linear,
            clip: Some(1.0),
            ..case("lenet-4-sgd-decay-linear-clip", &lenet, 4, entropy, &decayed)
        },
        coarse("f16", case("lenet-3-sgd-f16-link", &lenet, 3, entropy, &sgd)),
        coarse("bf16", case("lenet-1-sgd-bf16-link", &lenet, 1, entropy, &sgd)),
        Case {
            micro_batches: 16,
            ..case("mlp-1-adam-decay-micro", &mlp, 1, entropy, &adam_decayed)
        },
        case("lenet-1-sgd-entropy", &lenet, 1, entropy, &sgd),
        case("lenet-3-adam-entropy", &lenet, 3, entropy, &adam),
        case("lenet-5-sgd-mse", &lenet, 5, mse, &sgd),
        case("mlp-1-adam-mse", &mlp, 1, mse, &adam),
        case("mlp-2-sgd-entropy", &mlp, 2, entropy, &sgd),
    ]
}

/// The tensors of one case, by the name they have in its file.
type Tensors = HashMap<String, HostTensor>;

/// Trains a split model on the digits, and keeps what PyTorch is to be compared with.
fn train(case: &Case) -> Tensors {
    let stages = case.model.stage_count();
    let mut source = SeededWeights(SEED);
    let mut head = Segment::build(&case.model, 0..case.split, &mut source, true).unwrap();
    let mut tail = Segment::build(&case.model, case.split..stages, &mut source, true).unwrap();
    let mut tensors = Tensors::new();
    let put_weights = |prefix: &str, segments: [&Segment; 2], into: &mut Tensors| {
        let all = segments.into_iter().flat_map(|s| s.weights());
        into.extend(all.map(|(name, tensor)| (format!("{prefix}/{name}"), tensor)));
    };
    put_weights("weights", [&head, &tail], &mut tensors);

    let dataset = DataSpec::Digits.open().unwrap();
    let indices = Split::new(dataset.len(), SEED).indices(Part::Train).to_vec();
    let plan = BatchPlan::new(indices, BATCH, SEED).unwrap();
    let (mut inputs, mut labels, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for step in 1..=case.steps {
        let Batch { inputs: input, labels: label } = gather(dataset.as_ref(), &plan.batch(step));
        inputs.extend(input[0].1.to_f32().unwrap());
        labels.extend(label.to_i64().unwrap());
        let mut loss = 0.0;
        for (input, label, share) in cut(&input, &label, case.micro_batches) {
            let (activation, pass) = head.forward(&input, false).unwrap();
            let activation = over_the_link(activation, case.codec);
            if step == 1 && case.micro_batches == 1 {
                let logits = tail.infer(&activation).unwrap().remove(0).1;
                tensors.insert("logits".into(), logits);
            }
            let done = tail.loss_pass(&activation, &label, case.loss, share, true).unwrap();
            if step == 1 && case.micro_batches == 1 {
                tensors.insert("cut_gradient".into(), done.gradient[0].1.clone());
            }
            head.backward(pass, &over_the_link(done.gradient, case.codec)).unwrap();
            loss += f64::from(done.loss) * share;
        }
        let square = head.gradient_square() + tail.gradient_square();
        let rate = case.optimizer.learning_rate() * case.schedule.factor(step, case.steps);
        let update = Update { learning_rate: rate, scale: clip_scale(square, case.clip) };
        head.commit(&case.optimizer, update);
        tail.commit(&case.optimizer, update);
        losses.push(loss as f32);
    }
    put_weights("final", [&head, &tail], &mut tensors);
    let steps = case.steps as usize;
    let all = [
        ("step_inputs", HostTensor::from_f32(vec![steps, BATCH, 1, 8, 8], &inputs)),
        ("step_labels", HostTensor::from_i64(vec![steps, BATCH], &labels)),
        ("losses", HostTensor::from_f32(vec![steps], &losses)),
    ];
    tensors.extend(all.map(|(name, tensor)| (name.to_string(), tensor)));
    tensors
}

/// What arrives of it.
fn over_the_link(tensors: NamedTensors, codec: &str) -> NamedTensors {
    let codec = codec::by_name(codec).unwrap();
    wire::decode(wire::encode(tensors, codec.as_ref()), codec.as_ref()).unwrap()
}

/// Micro-batches of a batch of images, each with its share of the samples.
fn cut(
    input: &NamedTensors,
    labels: &HostTensor,
    parts: usize,
) -> Vec<(NamedTensors, HostTensor, f64)> {
    let (values, labels) = (input[0].1.to_f32().unwrap(), labels.to_i64().unwrap());
    let pixels = values.len() / labels.len();
    let part = |p: usize| {
        let (from, to) = (p * labels.len() / parts, (p + 1) * labels.len() / parts);
        let pixels = &values[from * pixels..to * pixels];
        let images = HostTensor::from_f32(vec![to - from, 1, 8, 8], pixels);
        let share = (to - from) as f64 / labels.len() as f64;
        (
            vec![("x".into(), images)],
            HostTensor::from_i64(vec![to - from], &labels[from..to]),
            share,
        )
    };
    (0..parts).map(part).collect()
}

fn write(folder: &Path, case: &Case, tensors: &Tensors) {
    let json = serde_json::json!({
        "model": case.model, "split": case.split, "loss": case.loss, "optimizer": case.optimizer,
        "schedule": case.schedule, "clip": case.clip, "codec": case.codec,
    });
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("case.json"), json.to_string()).unwrap();
    let view = |(name, tensor): (&String, &HostTensor)| {
        let dtype = if tensor.dtype() == DType::I64 { Dtype::I64 } else { Dtype::F32 };
        let shape = tensor.shape().to_vec();
        // The view must outlive the closure: leaked, a few hundred kilobytes in a test.
        let data: &'static [u8] = tensor.data().to_vec().leak();
        (name.clone(), TensorView::new(dtype, shape, data).unwrap())
    };
    let views: Vec<_> = tensors.iter().map(view).collect();
    fs::write(folder.join("case.safetensors"), safetensors::serialize(views, None).unwrap())
        .unwrap();
}

#[test]
fn split_training_gives_pytorchs_numbers() {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/pytorch_reference.py");
    let mut command = Command::new(python);
    command.arg(script);
    for case in cases() {
        let folder = dir.path().join(case.name);
        write(&folder, &case, &train(&case));
        command.arg(folder);
    }
    let output = command.output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), cases().len(), "{text}");
}

#[test]
fn a_wrong_number_is_noticed() {
    // The comparison itself: a loss that is off by 1 % must fail.
    let python = std::env::var("CLEAVE_TEST_PYTHON").expect("run scripts/test");
    let dir = tempfile::tempdir().unwrap();
    let case = cases().into_iter().find(|c| c.name == "mlp-2-sgd-entropy").unwrap();
    let case = &case;
    let mut tensors = train(case);
    let losses: Vec<f32> = tensors["losses"].to_f32().unwrap().iter().map(|l| l * 1.01).collect();
    tensors.insert("losses".into(), HostTensor::from_f32(vec![losses.len()], &losses));
    let folder = dir.path().join("wrong");
    write(&folder, case, &tensors);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/pytorch_reference.py");
    let output = Command::new(python).arg(script).arg(folder).output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("losses: differs from PyTorch"), "{text}");
}
