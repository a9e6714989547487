//! Weights from safetensors files, as PyTorch and Hugging Face write them.
//!
//! The files are mapped into memory: a node reads the pages of its own stages and no others, and an
//! FP32 tensor is used where it lies. Layout: 8 bytes of header length, a JSON header with dtype, shape
//! and offsets of each tensor, the data (<https://huggingface.co/docs/safetensors>).

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::TensorData;
use bytes::Bytes;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Weights;
use crate::model::{ModelError, ParamSpec, activation::float_data};

/// How much of each tensor's ends goes into the fingerprint, bytes.
const SAMPLE: usize = 4096;

/// Why a weight file could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct WeightFileError {
    pub path: String,
    pub problem: String,
}

/// All tensors of a model's files, none of them read yet.
pub struct WeightFile {
    path: PathBuf,
    shards: Vec<Shard>,
    tensors: HashMap<String, Entry>,
    fingerprint: String,
}

struct Shard {
    path: PathBuf,
    file: File,
    /// The file, mapped.
    data: Bytes,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its bytes are in the shard.
    begin: usize,
    end: usize,
}

/// `*.safetensors.index.json`: which tensor is in which file.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFile {
    /// Opens a `.safetensors` file, a `.safetensors.index.json`, or a folder with
    /// `model.safetensors` or its index, as `save_pretrained` writes it.
    pub fn open(path: &Path) -> Result<Self, WeightFileError> {
        let path = in_folder(path)?;
        let is_index = path.extension().is_some_and(|e| e == "json");
        let (files, index) = if is_index { read_index(&path)? } else { (vec![path.clone()], None) };
        let mut file =
            Self { path, shards: Vec::new(), tensors: HashMap::new(), fingerprint: String::new() };
        for shard in files {
            file.add(&shard)?;
        }
        if let Some(index) = index {
            file.check_index(&index)?;
        }
        file.fingerprint = file.digest().map_err(|e| error(&file.path, e.to_string()))?;
        Ok(file)
    }

    /// A digest of names, dtypes, shapes and samples of every tensor: nodes that have the same one have
    /// the same weights, unless somebody changed a few values in the middle of a tensor on purpose.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Names and shapes of all tensors, in no order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry.shape.as_slice()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A source that also finds a name behind one of these prefixes, or without one that it has: the
    /// same model is saved as `h.0` or as `transformer.h.0`, depending on the class it was saved from.
    pub fn source(self: &Arc<Self>, prefixes: &'static [&'static str]) -> FileWeights {
        FileWeights { file: self.clone(), prefixes }
    }

    #[expect(unsafe_code, reason = "a mapped file may be shortened by others")]
    fn add(&mut self, path: &Path) -> Result<(), WeightFileError> {
        let fail = |problem: String| error(path, problem);
        let file = File::open(path).map_err(|e| fail(e.to_string()))?;
        // SAFETY: the mapping is read only. A file that another process shortens meanwhile ends this
        // one with SIGBUS, as it would any program that maps it; weight files are replaced, not edited.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| fail(e.to_string()))?;
        let data = Bytes::from_owner(map);
        let parsed = SafeTensors::deserialize(&data)
            .map_err(|e| fail(format!("is not a whole safetensors file: {e}")))?;
        let shard = self.shards.len();
        for (name, view) in parsed.iter() {
            let begin = view.data().as_ptr() as usize - data.as_ptr() as usize;
            let (dtype, shape) = (view.dtype(), view.shape().to_vec());
            let entry = Entry { shard, dtype, shape, begin, end: begin + view.data().len() };
            if self.tensors.insert(name.to_string(), entry).is_some() {
                return Err(fail(format!("{name} is in another file of the index as well")));
            }
        }
        drop(parsed);
        self.shards.push(Shard { path: path.into(), file, data });
        Ok(())
    }

    fn check_index(&self, index: &Index) -> Result<(), WeightFileError> {
        for (name, file) in &index.weight_map {
            let found = self.tensors.get(name).map(|e| &self.shards[e.shard].path);
            if found.is_none_or(|path| path.file_name().is_none_or(|n| n.to_str() != Some(file))) {
                return Err(error(&self.path, format!("{name} should be in {file}, and is not")));
            }
        }
        Ok(())
    }

    /// The samples are read, not looked at where they are mapped: that would leave pages of every tensor
    /// in the memory of a node that has a few stages.
    fn digest(&self) -> io::Result<String> {
        let mut names: Vec<_> = self.tensors.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        let mut hash = Sha256::new();
        for (name, entry) in names {
            let length = (entry.end - entry.begin).min(SAMPLE);
            hash.update(format!("{name}\0{:?}\0{:?}\0", entry.dtype, entry.shape));
            let mut file = &self.shards[entry.shard].file;
            let mut sample = [0; SAMPLE];
            for begin in [entry.begin, entry.end - length] {
                file.seek(SeekFrom::Start(begin as u64))?;
                file.read_exact(&mut sample[..length])?;
                hash.update(&sample[..length]);
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        Ok(digest[..16].iter().map(|b| format!("{b:02x}")).collect())
    }

    fn bytes(&self, entry: &Entry) -> Bytes {
        self.shards[entry.shard].data.slice(entry.begin..entry.end)
    }

    /// Files that were converted from TensorFlow, the first BERTs among them, say gamma and beta.
    fn find_old(&self, name: &str) -> Option<&Entry> {
        let old =
            |new: &str, old: &str| Some(format!("{}LayerNorm.{old}", name.strip_suffix(new)?));
        let old = old("LayerNorm.weight", "gamma").or_else(|| old("LayerNorm.bias", "beta"))?;
        self.tensors.get(&old)
    }

    fn find(&self, name: &str, prefixes: &[&str]) -> Option<&Entry> {
        let longer = prefixes.iter().map(|p| format!("{p}{name}"));
        let shorter = prefixes.iter().filter_map(|p| name.strip_prefix(p)).map(str::to_string);
        let names = std::iter::once(name.to_string()).chain(longer).chain(shorter);
        names.into_iter().find_map(|n| self.tensors.get(&n).or_else(|| self.find_old(&n)))
    }
}

/// See [`WeightFile::source`].
pub struct FileWeights {
    file: Arc<WeightFile>,
    prefixes: &'static [&'static str],
}

impl Weights for FileWeights {
    fn has(&self, name: &str) -> bool {
        self.file.find(name, self.prefixes).is_some()
    }

    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        let file = &self.file;
        let fail = |place: &Path, problem: String| ModelError::Weight {
            name: param.name.into(),
            problem: format!("{problem} ({})", place.display()),
        };
        let Some(entry) = file.find(param.name, self.prefixes) else {
            return Err(fail(
                &file.path,
                format!("expected shape {:?}, found no such tensor", param.shape),
            ));
        };
        let place = &file.shards[entry.shard].path;
        if entry.shape != param.shape {
            let (expected, found) = (param.shape, &entry.shape);
            return Err(fail(place, format!("expected shape {expected:?}, found {found:?}")));
        }
        let (bytes, shape) = (file.bytes(entry), param.shape.to_vec());
        let halves = |to_f32: fn([u8; 2]) -> f32| {
            let pairs = bytes.chunks_exact(2).map(|b| to_f32([b[0], b[1]]));
            TensorData::new(pairs.collect::<Vec<f32>>(), shape.clone())
        };
        match entry.dtype {
            Dtype::F32 => Ok(float_data(bytes, shape)),
            Dtype::F16 => Ok(halves(|b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(halves(|b| bf16::from_le_bytes(b).to_f32())),
            other => Err(fail(place, format!("expected F32, F16 or BF16, found {other:?}"))),
        }
    }
}

fn in_folder(path: &Path) -> Result<PathBuf, WeightFileError> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    let names = ["model.safetensors", "model.safetensors.index.json"];
    let found = names.iter().map(|n| path.join(n)).find(|p| p.is_file());
    found.ok_or_else(|| error(path, format!("has neither {} nor {}", names[0], names[1])))
}

fn read_index(path: &Path) -> Result<(Vec<PathBuf>, Option<Index>), WeightFileError> {
    let fail = |problem: String| error(path, problem);
    let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
    let mut names: Vec<&String> = index.weight_map.values().collect();
    names.sort();
    names.dedup();
    // An index names files beside itself, and nothing else on this disk.
    if let Some(bad) = names.iter().find(|n| n.contains(['/', '\\']) || n.starts_with('.')) {
        return Err(fail(format!("{bad:?} is not the name of a file beside it")));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok((names.into_iter().map(|n| folder.join(n)).collect(), Some(index)))
}

fn error(path: &Path, problem: String) -> WeightFileError {
    WeightFileError { path: path.display().to_string(), problem }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
