#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    edge_node::cli::main()
}
