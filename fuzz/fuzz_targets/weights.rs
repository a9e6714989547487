//! A safetensors file, and tensors taken from it.
#![no_main]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use cleave_shared::model::{Init, ParamSpec, WeightFile, Weights};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

fn file() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| TempDir::new().expect("a folder")).path().join("model.safetensors")
}

fuzz_target!(|data: &[u8]| {
    let path = file();
    // A new file each time: the one before may still be mapped.
    let _ = fs::remove_file(&path);
    fs::write(&path, data).expect("a file");
    let Ok(weights) = WeightFile::open(&path) else { return };
    let weights = Arc::new(weights);
    let tensors: Vec<(String, Vec<usize>)> =
        weights.tensors().map(|(name, shape)| (name.into(), shape.into())).collect();
    let mut source = weights.source(&["transformer."]);
    for (name, shape) in tensors {
        assert!(source.has(&name));
        let param = ParamSpec { name: &name, shape: &shape, init: Init::Zeros };
        if let Ok(data) = source.data(&param) {
            assert_eq!(data.num_elements(), shape.iter().product::<usize>());
        }
    }
});
