//! Data that was prepared for a run: collected, cleaned, normalised and split, in files.
//!
//! ```text
//! <folder>/data.json               what it is: counts, what was left out, normalisation, checksums
//!          train.safetensors       inputs by name, and "labels"
//!          validation.safetensors
//!          test.safetensors
//! ```
//!
//! The manifest is written last: a folder without it is one that was not finished.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Column, DataError, DataSpec, Dataset, Dropped, Normalisation, Part, Split, Table, Target,
    dataset::gather_noted, normalise::floats_of,
};
use crate::{
    checkpoint::write_atomic,
    model::Port,
    progress::{Progress, Steps},
    tensor::DType,
};

const MANIFEST: &str = "data.json";
const LABELS: &str = "labels";

/// `data.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    /// Where the data came from.
    pub source: DataSpec,
    /// Seed of the split.
    pub seed: u64,
    /// Samples before cleaning.
    pub collected: usize,
    pub dropped: Dropped,
    /// Name and shape of each input of a sample.
    pub inputs: Vec<InputRecord>,
    pub target: Target,
    /// What was done to the inputs; empty if nothing was.
    pub normalisation: Vec<Normalisation>,
    pub parts: BTreeMap<String, PartRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    pub name: String,
    /// `FP32` or `INT64`.
    pub dtype: String,
    pub shape: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRecord {
    pub samples: usize,
    pub file: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Collects, cleans, normalises (if `normalise`) and splits by `seed`, and writes `folder`. `progress` is told of each
/// sample, once for everything that is done with it.
pub fn prepare(
    source: &DataSpec,
    seed: u64,
    normalise: bool,
    folder: &Path,
    progress: Progress<'_>,
) -> Result<Manifest, DataError> {
    let (dataset, mut dropped) = source.collect(progress)?;
    let collected = dataset.len() + dropped.rows();
    let kept = finite(dataset.as_ref(), &mut dropped, progress);
    let split = dataset.split(seed);
    let part = |part: Part| -> Vec<usize> {
        split.indices(part).iter().copied().filter(|&i| kept[i]).collect()
    };
    let parts = NAMES.map(|(name, which)| (name, part(which)));
    let train = &parts[0].1;
    if train.is_empty() {
        return Err(DataError::NoSamples);
    }
    let normalisation = match normalise {
        true => Normalisation::measure(dataset.as_ref(), train, progress),
        false => Vec::new(),
    };
    fs::create_dir_all(folder).map_err(|e| write_error(folder, e))?;
    // Whatever was prepared here before is no longer whole.
    let _ = fs::remove_file(folder.join(MANIFEST));
    let parts = write_parts(dataset.as_ref(), &parts, &normalisation, folder, progress)?;
    let input =
        |p: Port| InputRecord { shape: p.largest(), dtype: p.dtype.name().into(), name: p.name };
    let manifest = Manifest {
        name: dataset.name().into(),
        source: source.clone(),
        seed,
        collected,
        dropped,
        inputs: dataset.inputs().into_iter().map(input).collect(),
        target: dataset.target(),
        normalisation,
        parts,
    };
    let json = serde_json::to_vec_pretty(&manifest).expect("plain data");
    write_atomic(&folder.join(MANIFEST), &json)?;
    Ok(manifest)
}

const NAMES: [(&str, Part); 3] =
    [("train", Part::Train), ("validation", Part::Validation), ("test", Part::Test)];

/// A file for each part.
fn write_parts(
    dataset: &dyn Dataset,
    parts: &[(&str, Vec<usize>)],
    normalisation: &[Normalisation],
    folder: &Path,
    progress: Progress<'_>,
) -> Result<BTreeMap<String, PartRecord>, DataError> {
    let samples: usize = parts.iter().map(|(_, indices)| indices.len()).sum();
    let steps = Steps::new("writing samples", samples * dataset.inputs().len(), progress);
    let mut written = BTreeMap::new();
    for (name, indices) in parts {
        let bytes = serialize(dataset, indices, normalisation, &steps)?;
        let file = format!("{name}.safetensors");
        write_atomic(&folder.join(&file), &bytes)?;
        let record = PartRecord { samples: indices.len(), file, sha256: digest(&bytes) };
        written.insert(name.to_string(), record);
    }
    Ok(written)
}

/// Which samples have only finite numbers; others are counted as dropped.
fn finite(dataset: &dyn Dataset, dropped: &mut Dropped, progress: Progress<'_>) -> Vec<bool> {
    let floats: Vec<(usize, String)> = dataset
        .inputs()
        .into_iter()
        .enumerate()
        .filter(|(_, port)| port.dtype == DType::F32)
        .map(|(number, port)| (number, port.name))
        .collect();
    let labels = dataset.target().label().0 == DType::F32;
    let mut bytes = Vec::new();
    let mut bad = |index: usize| -> Option<String> {
        for (number, name) in &floats {
            bytes.clear();
            dataset.write_input(index, *number, &mut bytes);
            if !floats_of(&bytes).all(f32::is_finite) {
                return Some(format!("{name} is not finite"));
            }
        }
        bytes.clear();
        dataset.write_label(index, &mut bytes);
        (labels && !floats_of(&bytes).all(f32::is_finite)).then(|| "the label is not finite".into())
    };
    let mut kept = vec![true; dataset.len()];
    let steps = Steps::new("checking samples", kept.len(), progress);
    for (index, kept) in kept.iter_mut().enumerate() {
        if let Some(reason) = bad(index) {
            dropped.add(reason, format_args!("sample {index}"));
            *kept = false;
        }
        steps.step();
    }
    kept
}

fn serialize(
    dataset: &dyn Dataset,
    indices: &[usize],
    normalisation: &[Normalisation],
    steps: &Steps<'_>,
) -> Result<Vec<u8>, DataError> {
    let batch = gather_noted(dataset, indices, || steps.step());
    let ports = dataset.inputs();
    let mut tensors = Vec::new();
    for (port, (_, tensor)) in ports.into_iter().zip(batch.inputs) {
        let tensor = match normalisation.iter().find(|n| n.input == port.name) {
            Some(n) => n.apply(tensor),
            None => tensor,
        };
        tensors.push((port.name, tensor));
    }
    tensors.push((LABELS.into(), batch.labels));
    let views = tensors.iter().map(|(name, t)| {
        let dtype = if t.dtype() == DType::I64 { Dtype::I64 } else { Dtype::F32 };
        let view = TensorView::new(dtype, t.shape().to_vec(), t.data());
        view.map(|view| (name.as_str(), view))
    });
    let views: Result<Vec<_>, _> = views.collect();
    let bytes = views.and_then(|views| safetensors::serialize(views, None));
    bytes.map_err(|e| DataError::Prepared { path: LABELS.into(), problem: e.to_string() })
}

/// Prepared data, checked against its manifest.
pub struct Prepared {
    manifest: Manifest,
    /// In the order of [`NAMES`].
    parts: Vec<Table>,
}

impl Prepared {
    /// Whether something was prepared here, completely.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(MANIFEST).is_file()
    }

    /// The manifest alone, and its SHA-256.
    pub fn manifest(folder: &Path) -> Result<(Manifest, String), DataError> {
        let path = folder.join(MANIFEST);
        let bytes =
            fs::read(&path).map_err(|source| DataError::Read { path: path.clone(), source })?;
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|e| DataError::Prepared { path, problem: e.to_string() })?;
        manifest.normalisation.iter().try_for_each(Normalisation::check)?;
        Ok((manifest, digest(&bytes)))
    }

    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let (manifest, _) = Self::manifest(folder)?;
        let part = |(name, _): &(&str, Part)| read_part(folder, &manifest, name);
        let parts = NAMES.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { manifest, parts })
    }

    fn locate(&self, index: usize) -> (&Table, usize) {
        let mut index = index;
        for part in &self.parts {
            if index < part.samples {
                return (part, index);
            }
            index -= part.samples;
        }
        panic!("the sample index is past the end");
    }
}

fn read_part(folder: &Path, manifest: &Manifest, name: &str) -> Result<Table, DataError> {
    let path = folder.join(format!("{name}.safetensors"));
    let fail = |problem: String| DataError::Prepared { path: path.clone(), problem };
    let record = manifest.parts.get(name).ok_or_else(|| fail("is not in data.json".into()))?;
    let bytes = fs::read(&path).map_err(|source| DataError::Read { path: path.clone(), source })?;
    if digest(&bytes) != record.sha256 {
        return Err(fail("is not what was prepared: its checksum differs; prepare again".into()));
    }
    let bytes = Bytes::from(bytes);
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fail(e.to_string()))?;
    let column = |name: &str, dtype: DType, shape: &[usize]| {
        let tensor = file.tensor(name).map_err(|e| fail(e.to_string()))?;
        let expected = [&[record.samples], shape].concat();
        let own = if dtype == DType::I64 { Dtype::I64 } else { Dtype::F32 };
        if tensor.shape() != expected || tensor.dtype() != own {
            let (dtype, found) = (tensor.dtype(), tensor.shape());
            return Err(fail(format!("{name} is {dtype:?} {found:?}, not {expected:?}")));
        }
        Ok(bytes.slice_ref(tensor.data()))
    };
    let mut inputs = Vec::new();
    for input in &manifest.inputs {
        let dtype = match DType::from_name(&input.dtype) {
            Some(dtype @ (DType::F32 | DType::I64)) => dtype,
            _ => return Err(fail(format!("{} has dtype {:?}", input.name, input.dtype))),
        };
        let data = column(&input.name, dtype, &input.shape)?;
        let port = Port { dtype, ..Port::float(&input.name, &input.shape) };
        inputs.push(Column { port, data });
    }
    let (dtype, shape) = manifest.target.label();
    let labels = column(LABELS, dtype, &shape)?;
    let (name, samples) = (manifest.name.clone(), record.samples);
    Ok(Table { name, samples, inputs, target: manifest.target.clone(), labels })
}

impl Dataset for Prepared {
    fn name(&self) -> &str {
        &self.manifest.name
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|p| p.samples).sum()
    }

    fn inputs(&self) -> Vec<Port> {
        self.parts[0].inputs()
    }

    fn target(&self) -> Target {
        self.manifest.target.clone()
    }

    fn write_input(&self, index: usize, input: usize, out: &mut Vec<u8>) {
        let (part, index) = self.locate(index);
        part.write_input(index, input, out);
    }

    fn write_label(&self, index: usize, out: &mut Vec<u8>) {
        let (part, index) = self.locate(index);
        part.write_label(index, out);
    }

    /// The parts as they were prepared; the seed was used then.
    fn split(&self, _seed: u64) -> Split {
        let [train, validation, test] = [0, 1, 2].map(|i| self.parts[i].samples);
        Split::in_order(train, validation, test)
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash: [u8; 32] = Sha256::digest(bytes).into();
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn write_error(path: &Path, source: std::io::Error) -> DataError {
    DataError::Read { path: PathBuf::from(path), source }
}

#[cfg(test)]
#[path = "prepared_tests.rs"]
mod tests;
