//! How far long work has come: a bar on a terminal, nothing where there is none. Training, which has more to say, has
//! its own.

use std::{borrow::Cow, time::Duration};

use cleave_shared::progress::Step;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

const OF_STEPS: &str = "{msg} {wide_bar} {pos}/{len}, eta {eta}";
const WITHOUT_STEPS: &str = "{spinner} {msg}, {elapsed}";
/// How often what has no steps shows that it goes on.
const TICK: Duration = Duration::from_millis(100);

/// A bar for so many steps of something; it goes away when they are done.
pub fn bar(what: impl Into<Cow<'static, str>>, steps: usize) -> ProgressBar {
    // To standard error, and drawn only if that is a terminal.
    let bar = ProgressBar::new(steps as u64)
        .with_style(style(OF_STEPS))
        .with_message(what)
        .with_finish(ProgressFinish::AndClear);
    // The first step may take long.
    bar.tick();
    bar
}

/// How long something takes whose steps are not counted, or not yet: see [`follow`]. `quiet`: nothing is shown, for a
/// node that serves.
pub fn waiting(what: &'static str, quiet: bool) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
    let bar = bar
        .with_style(style(WITHOUT_STEPS))
        .with_message(what)
        .with_finish(ProgressFinish::AndClear);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// Shows a step that was counted elsewhere: the bar is there from the first of a kind to the last.
pub fn follow(bar: &ProgressBar, step: Step) {
    let Step { what, done, of } = step;
    if done == 1 {
        bar.disable_steady_tick();
        bar.set_style(style(OF_STEPS));
        bar.set_length(of as u64);
        bar.set_message(what);
        bar.reset();
    }
    bar.set_position(done as u64);
    if done == of {
        bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a constant")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_goes_and_comes_again_for_the_next_kind_of_steps() {
        let bar = waiting("reading", true);
        assert!(bar.is_hidden());
        for done in 1..=3 {
            assert!(!bar.is_finished(), "{done}");
            follow(&bar, Step { what: "measuring", done, of: 3 });
        }
        assert!(bar.is_finished());
        follow(&bar, Step { what: "writing", done: 1, of: 2 });
        assert_eq!(bar.message(), "writing");
        assert_eq!((bar.position(), bar.length()), (1, Some(2)));
        assert!(!bar.is_finished());
    }
}
