#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cloud_node::cli::main()
}
