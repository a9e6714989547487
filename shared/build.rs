//! Generates the split protocol's code from `proto/cleave/v1`.
//!
//! protox parses the files in Rust, so that a build needs no installed `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

const INCLUDE: &str = "../proto";
const FILES: [&str; 2] = ["../proto/cleave/v1/split.proto", "../proto/cleave/v1/group.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    FILES.iter().for_each(|file| println!("cargo::rerun-if-changed={file}"));
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([INCLUDE])?;
    compiler.include_source_info(true).include_imports(true).open_files(FILES)?;
    fs::write(out.join("cleave_descriptor.bin"), compiler.encode_file_descriptor_set())?;

    // Bytes instead of Vec<u8>: tensors are handed on without a copy.
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::wire::SizedCodec")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
