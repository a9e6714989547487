//! How far long work has come, told to whoever shows it.

use std::sync::{Mutex, PoisonError};

/// One more step of some work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What steps of this kind do, in a word or two.
    pub what: &'static str,
    /// How many of this kind are done, with this one.
    pub done: usize,
    /// How many there will be.
    pub of: usize,
}

/// Is told of each step, on whichever thread it was done.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);

/// For work that nobody watches.
pub fn unseen(_: Step) {}

/// Counts the steps of one kind.
pub struct Steps<'a> {
    what: &'static str,
    of: usize,
    done: Mutex<usize>,
    progress: Progress<'a>,
}

impl<'a> Steps<'a> {
    pub fn new(what: &'static str, of: usize, progress: Progress<'a>) -> Self {
        Self { what, of, done: Mutex::new(0), progress }
    }

    /// Counts one. They are told of one at a time and in order, whatever threads they are done on.
    pub fn step(&self) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        (self.progress)(Step { what: self.what, done: *done, of: self.of });
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn steps_of_several_threads_are_told_in_order() {
        let told = Mutex::new(Vec::new());
        let note = |step: Step| told.lock().unwrap().push((step.done, step.of));
        let steps = Steps::new("counting", 400, &note);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| steps.step()));
            }
        });
        let told = told.lock().unwrap();
        assert_eq!(*told, (1..=400).map(|done| (done, 400)).collect::<Vec<_>>());
    }
}
