#![forbid(unsafe_code)]

use cleave_shared::memory::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> std::process::ExitCode {
    cloud_node::cli::main()
}
