//! What PyTorch computed for a case.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use cleave_shared::{model::WeightFile, tensor::HostTensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A script is called with a folder that holds `case.json`, and leaves there `model.safetensors`, the
/// weights as the library saves them; `expected.safetensors`, inputs and what came of them; and
/// `facts.json`, numbers by name.
pub struct Reference {
    folder: tempfile::TempDir,
    tensors: HashMap<String, HostTensor>,
    pub facts: Value,
}

impl Reference {
    pub fn make(script: &str, case: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("case.json"), case.to_string()).unwrap();
        run_python(script, &[folder.path()]);
        let tensors = read_tensors(&folder.path().join("expected.safetensors"));
        let facts = fs::read(folder.path().join("facts.json")).unwrap();
        let facts = serde_json::from_slice(&facts).unwrap();
        Self { folder, tensors, facts }
    }

    pub fn weights_path(&self) -> PathBuf {
        self.folder.path().join("model.safetensors")
    }

    pub fn weights(&self) -> Arc<WeightFile> {
        Arc::new(WeightFile::open(&self.weights_path()).unwrap())
    }

    pub fn tensor(&self, name: &str) -> &HostTensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the script left no {name}"))
    }

    /// Tensors whose names begin with `prefix`, by the rest of the name.
    pub fn group(&self, prefix: &str) -> HashMap<&str, &HostTensor> {
        let rest = self.tensors.iter().filter_map(|(n, t)| Some((n.strip_prefix(prefix)?, t)));
        rest.collect()
    }
}

/// Runs a script of `tests/python`; what it printed.
pub fn run_python(script: &str, arguments: &[&Path]) -> String {
    let python = std::env::var("CLEAVE_TEST_PYTHON")
        .expect("CLEAVE_TEST_PYTHON is not set: run scripts/test, which makes the environment");
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python"));
    let output = Command::new(python).arg(folder.join(script)).args(arguments).output();
    let output = output.expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}{errors}");
    text
}

pub fn read_tensors(path: &Path) -> HashMap<String, HostTensor> {
    let bytes = fs::read(path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let read = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let shape = view.shape().to_vec();
        let tensor = match view.dtype() {
            Dtype::F32 => {
                let quads = view.data().chunks_exact(4);
                let values = quads.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                HostTensor::from_f32(shape, &values.collect::<Vec<_>>())
            }
            Dtype::I64 => {
                let octets = view.data().chunks_exact(8);
                let values = octets.map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                HostTensor::from_i64(shape, &values.collect::<Vec<_>>())
            }
            other => panic!("{name} is {other:?}"),
        };
        (name.to_string(), tensor)
    };
    parsed.iter().map(read).collect()
}

/// Sample `index` of a tensor that has one sample more dimension: `[steps, batch, ...]` at one step.
pub fn at(tensor: &HostTensor, index: usize) -> HostTensor {
    let shape = tensor.shape()[1..].to_vec();
    let bytes = tensor.data().len() / tensor.shape()[0];
    let data = tensor.data().slice(index * bytes..(index + 1) * bytes);
    HostTensor::new(tensor.dtype(), shape, data).unwrap()
}

/// Largest difference, as a part of the largest expected value.
pub fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let pairs = found.iter().zip(expected);
    // A NaN anywhere must not vanish in the maximum.
    let worst = pairs
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0f64, |m, d| if d.is_nan() { f64::NAN } else { m.max(d) });
    worst / largest.max(f64::MIN_POSITIVE)
}

/// Fails unless the tensors have the same shape and [`difference`] is at most `bound`; returns it.
pub fn assert_close(what: &str, found: &HostTensor, expected: &HostTensor, bound: f64) -> f64 {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let worst = difference(&found.to_f32().unwrap(), &expected.to_f32().unwrap());
    assert!(worst <= bound, "{what}: differs from PyTorch by {worst:.2e}, more than {bound:.0e}");
    worst
}
