//! AlexNet, VGG, ResNet and MobileNetV2 against torchvision.

use std::fs;

use cleave_shared::{
    model::{
        AlexnetSpec, LossKind, MobilenetV2Spec, ModelError, ModelSpec, OptimizerSpec, ResnetBlock,
        ResnetSpec, Segment, VggSpec, WeightFile,
    },
    tensor::HostTensor,
    wire::NamedTensors,
};
use serde_json::json;

use crate::{
    reference::{Reference, assert_close, at, difference},
    splits::{STEPS, SplitTraining, adam, infer, segment, sgd},
};

const SCRIPT: &str = "torchvision_reference.py";
const BATCH: usize = 8;
/// Small: with more, 20 steps through batch normalisation of so few values amplify the rounding of one
/// addition beyond any bound; PyTorch then differs as much from itself in double precision.
const RATE: f64 = 0.001;

/// Logits, in inference.
const INFERENCE: f64 = 1e-4;
/// Losses, and what is left after the training: weights, running statistics, logits.
const TRAINING: f64 = 1e-3;
/// What SGD has changed in 20 steps, weights and running statistics.
const UPDATES: f64 = 1e-2;

/// Small, and with maps that the adaptive pooling cannot divide evenly: 2×1 to 6×6.
fn alexnet() -> ModelSpec {
    ModelSpec::Alexnet(AlexnetSpec {
        input: [3, 96, 80],
        channels: [8, 12, 16, 12, 10],
        hidden: [32, 24],
        classes: 7,
    })
}

/// 10×9 to 7×7.
fn vgg() -> ModelSpec {
    ModelSpec::Vgg(VggSpec {
        input: [3, 40, 36],
        channels: vec![vec![8, 8], vec![12]],
        hidden: [32, 24],
        classes: 7,
    })
}

fn resnet(block: ResnetBlock, layers: [usize; 4], width: usize) -> ModelSpec {
    let layers = layers.to_vec();
    ModelSpec::Resnet(ResnetSpec { input: [3, 48, 40], block, layers, width, classes: 7 })
}

fn mobilenet() -> ModelSpec {
    ModelSpec::MobilenetV2(MobilenetV2Spec {
        input: [3, 32, 28],
        width: 0.25,
        blocks: vec![[1, 16, 1, 1], [6, 24, 2, 2], [4, 40, 1, 1]],
        classes: 7,
    })
}

fn named(tensor: &HostTensor) -> NamedTensors {
    vec![("x".into(), tensor.clone())]
}

/// Inference at every split point, training at some.
fn is_torchvisions(spec: ModelSpec, splits: [usize; 3]) {
    assert_eq!(spec.check(), Ok(()));
    let case = json!({
        "model": spec, "batch": BATCH, "steps": STEPS, "optimizers": { "sgd": sgd(RATE), "adam": adam(RATE / 5.0) },
    });
    let reference = Reference::make(SCRIPT, &case);
    let file = reference.weights();

    let flops: u64 = spec.stages().iter().map(|s| s.flops).sum();
    assert_eq!(reference.facts["flops"], flops, "as PyTorch counts them");

    let input = named(reference.tensor("input"));
    let whole = segment(&spec, &file, 0..spec.stage_count(), false).infer(&input).unwrap();
    let worst = assert_close("logits", &whole[0].1, reference.tensor("logits"), INFERENCE);
    println!("{}: logits {worst:.1e}", spec.family_name());
    for split in 0..=spec.stage_count() {
        assert_eq!(infer(&spec, &file, split, &input), whole, "bit for bit, split at {split}");
    }
    for split in splits {
        for (name, optimizer) in [("sgd", sgd(RATE)), ("adam", adam(RATE / 5.0))] {
            trains_alike(&spec, &reference, split, name, optimizer);
        }
    }
}

fn trains_alike(
    spec: &ModelSpec,
    reference: &Reference,
    split: usize,
    name: &str,
    optimizer: OptimizerSpec,
) {
    let (file, loss) = (reference.weights(), LossKind::CrossEntropy);
    let mut training = SplitTraining::new(spec, &file, split, loss, optimizer);
    let what = format!("{} split at {split}, {name}", spec.family_name());
    let inputs = |i| named(&at(reference.tensor("step_inputs"), i));
    let worst_loss = training.losses_are_alike(&what, reference, name, inputs, TRAINING);

    // Adam moves a weight by its rate however small the gradient is; where that is nothing but rounding,
    // the direction is chance.
    if name == "sgd" {
        let worst = weights_are_alike(&what, reference, name, &training.weights());
        println!("{what}: weights {worst:.1e}");
    }
    let logits = training.infer(&named(reference.tensor("input")));
    let expected = reference.tensor(&format!("{name}/logits"));
    let bound = if name == "sgd" { TRAINING } else { UPDATES };
    let worst_logit = assert_close(&format!("{what}: logits"), &logits[0].1, expected, bound);
    println!("{what}: losses {worst_loss:.1e}, logits {worst_logit:.1e}");
}

/// Weights and running statistics after the training, and how they moved in it.
fn weights_are_alike(what: &str, reference: &Reference, name: &str, weights: &NamedTensors) -> f64 {
    let final_prefix = format!("{name}/final/");
    let (before, after) = (reference.group("initial/"), reference.group(&final_prefix));
    assert_eq!(weights.len(), after.len(), "every parameter and running statistic");
    let check = |(parameter, tensor): &(String, HostTensor)| {
        let what = format!("{what}: {parameter}");
        let (before, after) = (before[parameter.as_str()], after[parameter.as_str()]);
        let before = before.to_f32().unwrap();
        let moved = |t: &HostTensor| -> Vec<f32> {
            t.to_f32().unwrap().iter().zip(&before).map(|(a, b)| a - b).collect()
        };
        let update = difference(&moved(tensor), &moved(after));
        assert!(update <= UPDATES, "{what}: moved otherwise than in PyTorch by {update:.2e}");
        assert_close(&what, tensor, after, TRAINING)
    };
    weights.iter().map(check).fold(0.0, f64::max)
}

#[test]
fn alexnet_is_torchvisions() {
    is_torchvisions(alexnet(), [1, 6, 10]);
}

#[test]
fn vgg_is_torchvisions() {
    is_torchvisions(vgg(), [1, 4, 6]);
}

#[test]
fn resnet_of_basic_blocks_is_torchvisions() {
    is_torchvisions(resnet(ResnetBlock::Basic, [1, 2, 1, 1], 8), [1, 4, 7]);
}

#[test]
fn resnet_of_bottlenecks_is_torchvisions() {
    is_torchvisions(resnet(ResnetBlock::Bottleneck, [1, 1, 2, 1], 4), [2, 5, 6]);
}

#[test]
fn mobilenetv2_is_torchvisions() {
    is_torchvisions(mobilenet(), [1, 3, 6]);
}

/// The sizes that people use, at some cuts; takes minutes and gigabytes.
#[test]
#[ignore = "full-size models: cargo test --workspace --test zoo full_size -- --ignored --nocapture"]
fn full_size_models_are_torchvisions() {
    for name in ["alexnet", "vgg16", "resnet18", "resnet50", "mobilenetv2"] {
        let spec = ModelSpec::builtin(name).unwrap();
        let reference = Reference::make(SCRIPT, &json!({ "model": spec, "batch": 1 }));
        let file = reference.weights();
        let flops: u64 = spec.stages().iter().map(|s| s.flops).sum();
        assert_eq!(reference.facts["flops"], flops, "{name}");
        let input = named(reference.tensor("input"));
        let count = spec.stage_count();
        for split in [0, 1, count / 2, count - 1, count] {
            let begin = std::time::Instant::now();
            let logits = infer(&spec, &file, split, &input);
            let what = format!("{name} split at {split} of {count}");
            let expected = reference.tensor("logits");
            let worst = assert_close(&what, &logits[0].1, expected, INFERENCE);
            println!("{what}: {worst:.1e}, {:.0} ms with loading", begin.elapsed().as_millis());
        }
    }
}

#[test]
fn a_wrong_weight_file_is_an_error_by_name() {
    let spec = mobilenet();
    let reference = Reference::make(SCRIPT, &json!({ "model": spec, "batch": 1 }));
    let path = reference.weights_path();
    let whole = fs::read(&path).unwrap();
    let count = spec.stage_count();
    let load = |spec: &ModelSpec| {
        let file = std::sync::Arc::new(WeightFile::open(&path).map_err(|e| e.to_string())?);
        let built = Segment::build(spec, 0..count, &mut file.source(spec.prefixes()), false);
        built.map(|_| ()).map_err(|e: ModelError| e.to_string())
    };
    assert_eq!(load(&spec), Ok(()));

    let ModelSpec::MobilenetV2(sizes) = spec.clone() else { unreachable!() };
    let classes = ModelSpec::MobilenetV2(MobilenetV2Spec { classes: 8, ..sizes });
    let shown = path.display();
    let misshapen =
        format!("weight classifier.1.weight: expected shape [8, 1280], found [7, 1280] ({shown})");
    assert_eq!(load(&classes), Err(misshapen));

    // The name of one tensor in the header, changed to one of the same length.
    let (old, new) = (&b"\"features.1.conv.1.weight\""[..], &b"\"features.1.conv.1.weihgt\""[..]);
    let place = whole.windows(old.len()).position(|w| w == old).unwrap();
    let mut renamed = whole.clone();
    renamed[place..place + new.len()].copy_from_slice(new);
    fs::write(&path, renamed).unwrap();
    let missing =
        "weight features.1.conv.1.weight: expected shape [8, 8, 1, 1], found no such tensor";
    assert_eq!(load(&spec), Err(format!("{missing} ({shown})")));

    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let truncated = load(&spec).unwrap_err();
    assert!(truncated.contains("is not a whole safetensors file"), "{truncated}");
}

#[test]
fn batch_norm_does_not_train_on_one_value() {
    let spec = resnet(ResnetBlock::Basic, [1, 1, 1, 1], 4);
    let mut weights = cleave_shared::model::SeededWeights(1);
    let mut whole = Segment::build(&spec, 0..spec.stage_count(), &mut weights, true).unwrap();
    let input = named(&HostTensor::from_f32(vec![1, 3, 8, 8], &[0.5; 192]));
    assert!(whole.infer(&input).is_ok(), "smaller maps than planned are a matter of the server");
    let error = whole.head_forward(&input).err().unwrap().to_string();
    assert!(error.starts_with("stage layer"), "{error}");
    assert!(error.contains("more than one value a channel to train on"), "{error}");
}
