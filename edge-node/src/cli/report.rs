//! `edge-node report`: a run as a page, and as a trace.

use std::path::PathBuf;

use clap::Args;
use cleave_shared::config::Config;

use crate::run_page;

#[derive(Args)]
pub struct ReportArgs {
    /// Run id
    #[arg(value_name = "RUN")]
    run: String,
    /// Where the page goes [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE.html")]
    output: Option<PathBuf>,
    /// Writes the recorded steps for Perfetto or chrome://tracing as well; with --step that one
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Whose timeline is shown [default: the last that was recorded]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
}

pub fn report(config: &Config, args: ReportArgs) -> Result<(), String> {
    let ReportArgs { run, output, trace, step } = args;
    for path in run_page::write(config, &run_page::Options { run, output, trace, step })? {
        println!("wrote {}", path.display());
    }
    Ok(())
}
