//! How far long work has come: a bar on a terminal, nothing where there is none. Training, which has more to say, has its
//! own.

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// A bar for so many steps of something; it goes away when they are done.
pub fn bar(what: &'static str, steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}, eta {eta}");
    // To standard error, and drawn only if that is a terminal.
    ProgressBar::new(steps as u64)
        .with_style(style.expect("a constant"))
        .with_message(what)
        .with_finish(ProgressFinish::AndClear)
}
