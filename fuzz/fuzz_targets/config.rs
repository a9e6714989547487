//! A configuration file.
#![no_main]

use std::{fs, path::PathBuf, sync::OnceLock};

use cleave_shared::config::{self, Overrides};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

fn file() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| TempDir::new().expect("a folder")).path().join("cleave.toml")
}

fuzz_target!(|text: &str| {
    let file = file();
    fs::write(&file, text).expect("a file");
    if let Err(error) = config::load(&file, &Overrides::default()) {
        let line = error.to_string();
        assert!(!line.trim().is_empty());
    }
});
