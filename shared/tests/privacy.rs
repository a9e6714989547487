//! Privacy measures against libraries that are not Cleave's: Opacus' accountant, PyTorch's gradients.
//!
//! This side writes what it computed; `tests/python/privacy_reference.py` computes it again and compares.

use std::{fs, path::Path, process::Command};

use burn::tensor::Device;
use cleave_shared::{
    model::Activation,
    privacy::{NoiseKey, PrivacySpec, Shield, accountant, nopeek},
    tensor::HostTensor,
    wire::NamedTensors,
};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};

const BATCH: usize = 12;
const CLIP: f64 = 3.0;

/// ε over a grid of noise, sampling and length.
fn accounts() -> Value {
    let mut rows = Vec::new();
    for noise in [0.5, 0.8, 1.0, 1.7, 4.0, 20.0] {
        for rate in [0.0005, 0.01, 0.2, 0.7, 1.0] {
            for steps in [1, 40, 10_000] {
                for delta in [1e-3, 1e-5, 1e-9] {
                    let epsilon = accountant::epsilon(noise, rate, steps, delta);
                    rows.push(json!({
                        "noise": noise, "rate": rate, "steps": steps, "delta": delta,
                        "epsilon": epsilon,
                    }));
                }
            }
        }
    }
    Value::Array(rows)
}

/// Values in about -1 to 1 that look like nothing.
fn values(count: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 2_654_435_761 + seed * 40_503) % 65_521) as f32 / 32_760.0 - 1.0;
    (0..count).map(value).collect()
}

/// Some samples of an activation above the clip, and some below.
fn activation(input: &[f32]) -> NamedTensors {
    let width = input.len() / BATCH;
    let mixed = |i: usize| {
        let (sample, place) = (i / 20, i % 20);
        let size = 0.2 + sample as f32 * 0.15;
        let x = input[sample * width + place % width];
        size * (2.0 * x + input[sample * width + (place * 3 + 1) % width]).tanh()
    };
    let map: Vec<f32> = (0..BATCH * 20).map(mixed).collect();
    let state: Vec<f32> = values(BATCH * 6, 3).iter().map(|v| v * 0.8).collect();
    vec![
        ("map".into(), HostTensor::from_f32(vec![BATCH, 5, 2, 2], &map)),
        ("mask".into(), HostTensor::from_i64(vec![BATCH, 3], &[1; BATCH * 3])),
        ("state".into(), HostTensor::from_f32(vec![BATCH, 6], &state)),
    ]
}

fn with_prefix(prefix: &str, tensors: NamedTensors) -> NamedTensors {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}/{name}"), tensor)).collect()
}

/// What is compared: clipping and penalty, each with its gradient.
fn computed() -> NamedTensors {
    let device = Device::flex().autodiff();
    let input = values(BATCH * 16, 1);
    let inputs = vec![("x".to_string(), HostTensor::from_f32(vec![BATCH, 1, 4, 4], &input))];
    let smashed = activation(&input);
    let upstream = vec![
        ("map".to_string(), HostTensor::from_f32(vec![BATCH, 5, 2, 2], &values(BATCH * 20, 5))),
        ("state".to_string(), HostTensor::from_f32(vec![BATCH, 6], &values(BATCH * 6, 6))),
    ];
    let on_device = |tensors: &NamedTensors| Activation::from_host(tensors, &device).unwrap();

    let leaf = on_device(&smashed).require_grad();
    let spec = PrivacySpec { clip: Some(CLIP), ..PrivacySpec::default() };
    let clipped = Shield::new(&spec, NoiseKey::from_seed(1)).apply(leaf.clone(), 1, 0);
    let grads = clipped.clone().weighted_sum(on_device(&upstream)).unwrap().backward();
    let mut all = with_prefix("clipped", clipped.into_host());
    all.extend(with_prefix("clip_gradient", leaf.grads(&grads).into_host()));

    let leaf = on_device(&smashed).require_grad();
    let penalty = nopeek::penalty(&on_device(&inputs), &leaf);
    let grads = penalty.backward();
    all.push(("penalty".into(), HostTensor::from_f32(vec![1], &[penalty.into_scalar()])));
    all.extend(with_prefix("penalty_gradient", leaf.grads(&grads).into_host()));
    all.extend(with_prefix("input", inputs));
    all.extend(with_prefix("smashed", smashed));
    all.extend(with_prefix("upstream", upstream));
    all.retain(|(_, tensor)| tensor.to_f32().is_ok());
    all
}

fn write(folder: &Path, accounts: &Value, tensors: &NamedTensors) {
    let case = json!({ "clip": CLIP, "accounts": accounts });
    fs::write(folder.join("case.json"), case.to_string()).unwrap();
    let view = |(name, tensor): &(String, HostTensor)| {
        // The view must outlive the closure: leaked, some kilobytes in a test.
        let data: &'static [u8] = tensor.data().to_vec().leak();
        (name.clone(), TensorView::new(Dtype::F32, tensor.shape().to_vec(), data).unwrap())
    };
    let views: Vec<_> = tensors.iter().map(view).collect();
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("case.safetensors"), bytes).unwrap();
}

/// Whether the reference agrees, and what it says.
fn compare(accounts: &Value, tensors: &NamedTensors) -> (bool, String) {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), accounts, tensors);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/privacy_reference.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().expect("python runs");
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    (output.status.success(), text.concat())
}

#[test]
fn accountant_clipping_and_penalty_agree_with_the_references() {
    let (agrees, text) = compare(&accounts(), &computed());
    println!("{text}");
    assert!(agrees, "{text}");
}

#[test]
fn a_wrong_number_is_noticed() {
    let (mut accounts, tensors) = (accounts(), computed());
    let epsilon = accounts[7]["epsilon"].as_f64().unwrap();
    accounts[7]["epsilon"] = json!(epsilon * 1.00001);
    let (agrees, text) = compare(&accounts, &tensors);
    assert!(!agrees && text.contains("epsilon"), "{text}");
    for name in ["clip_gradient/map", "penalty", "penalty_gradient/state"] {
        let mut wrong = tensors.clone();
        let (_, tensor) = wrong.iter_mut().find(|(n, _)| n == name).unwrap();
        let off: Vec<f32> = tensor.to_f32().unwrap().iter().map(|v| v * 1.001).collect();
        *tensor = HostTensor::from_f32(tensor.shape().to_vec(), &off);
        let (agrees, text) = compare(&json!([]), &wrong);
        assert!(!agrees && text.contains(name), "{name}: {text}");
    }
}
