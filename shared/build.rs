//! Generates the split protocol's code from `proto/cleave/v1`.
//!
//! protox parses the file in Rust, so that a build needs no installed `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

const INCLUDE: &str = "../proto";
const FILE: &str = "../proto/cleave/v1/split.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FILE}");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([INCLUDE])?;
    compiler.include_source_info(true).include_imports(true).open_file(FILE)?;
    fs::write(out.join("cleave_descriptor.bin"), compiler.encode_file_descriptor_set())?;

    // Bytes instead of Vec<u8>: tensors are handed on without a copy.
    tonic_prost_build::configure().bytes(".").compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
