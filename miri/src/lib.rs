//! Under Miri: `cargo +nightly miri test --manifest-path miri/Cargo.toml`.
//!
//! The products of `cleave-shared`, whose pointers go to an assembler-like kernel. The other two unsafe calls of Cleave are of
//! the operating system, which Miri has not: a file is mapped (`model/weights/file.rs`), the allocator is told two numbers
//! (`memory.rs`).

#[path = "../../shared/src/kernels/multiply.rs"]
pub mod multiply;
