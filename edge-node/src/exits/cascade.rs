//! What a threshold does to a set of samples.

use cleave_shared::model::{confidence, loss::argmax};
use serde::Serialize;

/// What one classifier says of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    pub confidence: f32,
    pub right: bool,
}

impl Judged {
    pub fn of(logits: &[f32], label: i64) -> Self {
        Self { confidence: confidence(logits), right: argmax(logits) as i64 == label }
    }
}

/// One threshold, over all samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub threshold: f64,
    /// Share of the samples that leave at each exit.
    pub left: Vec<f64>,
    /// Share of right answers of exits and the rest of the model together.
    pub accuracy: f64,
    /// Share of right answers among the samples that leave, if there are any.
    pub accuracy_of_left: Option<f64>,
}

/// Sends samples past exits, `exits[i][sample]` being what the i-th says; `uncut` is what all of the model
/// says.
pub fn cascade(exits: &[Vec<Judged>], uncut: &[Judged], threshold: f64) -> Row {
    let (mut left, mut right, mut right_of_left) = (vec![0usize; exits.len()], 0, 0);
    for (sample, whole) in uncut.iter().enumerate() {
        let sure = |exit: &Vec<Judged>| exit[sample].confidence >= threshold as f32;
        match exits.iter().position(sure) {
            Some(i) => {
                left[i] += 1;
                right_of_left += usize::from(exits[i][sample].right);
            }
            None => right += usize::from(whole.right),
        }
    }
    let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
    let leaving: usize = left.iter().sum();
    Row {
        threshold,
        accuracy: share(right + right_of_left, uncut.len()),
        accuracy_of_left: (leaving > 0).then(|| share(right_of_left, leaving)),
        left: left.into_iter().map(|count| share(count, uncut.len())).collect(),
    }
}

/// Share of right answers.
pub fn accuracy(judged: &[Judged]) -> f64 {
    judged.iter().filter(|j| j.right).count() as f64 / judged.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_leave_at_the_first_exit_that_is_sure() {
        let judged = |list: &[(f32, bool)]| -> Vec<Judged> {
            list.iter().map(|&(confidence, right)| Judged { confidence, right }).collect()
        };
        let exits = [
            judged(&[(0.95, true), (0.5, true), (0.99, false), (0.3, true)]),
            judged(&[(0.2, false), (0.9, true), (0.99, true), (0.3, true)]),
        ];
        let uncut = judged(&[(1.0, true), (1.0, true), (1.0, true), (1.0, false)]);
        let row = cascade(&exits, &uncut, 0.9);
        assert_eq!(row.left, [0.5, 0.25]);
        assert_eq!(row.accuracy, 0.5);
        assert_eq!(row.accuracy_of_left, Some(2.0 / 3.0));
        let none = cascade(&exits, &uncut, 0.999);
        assert_eq!((none.accuracy, none.accuracy_of_left), (accuracy(&uncut), None));
    }
}
