//! Which classes are taken for which, and what follows for each class.

use serde::Serialize;

/// Counts of `[truth][prediction]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confusion {
    pub names: Vec<String>,
    pub counts: Vec<Vec<u64>>,
}

/// How well one class is told apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScore {
    pub name: String,
    /// Samples of this class.
    pub support: u64,
    /// Share of what was called this class that is it; 0 if nothing was.
    pub precision: f64,
    /// Share of this class that was called it.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl Confusion {
    /// `outputs` may be more than there are names: the model can say classes that the data lack.
    pub fn new(names: &[String], outputs: usize) -> Self {
        let mut names = names.to_vec();
        (names.len()..outputs).for_each(|i| names.push(format!("#{i}")));
        let counts = vec![vec![0; names.len()]; names.len()];
        Self { names, counts }
    }

    /// Adds a sample; a class that is not there is left out.
    pub fn add(&mut self, truth: i64, prediction: usize) {
        let row = usize::try_from(truth).ok().and_then(|t| self.counts.get_mut(t));
        if let Some(count) = row.and_then(|row| row.get_mut(prediction)) {
            *count += 1;
        }
    }

    pub fn accuracy(&self) -> f64 {
        let right: u64 = (0..self.names.len()).map(|i| self.counts[i][i]).sum();
        ratio(right, self.counts.iter().flatten().sum())
    }

    /// One row a class, in the order of the names.
    pub fn classes(&self) -> Vec<ClassScore> {
        let class = |(i, name): (usize, &String)| {
            let right = self.counts[i][i];
            let support: u64 = self.counts[i].iter().sum();
            let called: u64 = self.counts.iter().map(|row| row[i]).sum();
            let (precision, recall) = (ratio(right, called), ratio(right, support));
            // 2PR / (P + R), without the division by 0.
            let f1 = ratio(2 * right, support + called);
            ClassScore { name: name.clone(), support, precision, recall, f1 }
        };
        self.names.iter().enumerate().map(class).collect()
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected: scikit-learn's classification_report of y_true = [0,0,0,1,1,2], y_pred = [0,0,1,1,0,1].
    #[test]
    fn scores_are_those_of_scikit_learn() {
        let names = ["a", "b", "c"].map(String::from);
        let mut confusion = Confusion::new(&names, 3);
        for (truth, prediction) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (2, 1)] {
            confusion.add(truth, prediction);
        }
        assert_eq!(confusion.counts, [[2, 1, 0], [1, 1, 0], [0, 1, 0]]);
        assert_eq!(confusion.accuracy(), 0.5);
        let classes = confusion.classes();
        let third = |n: f64| (n * 3.0 * 1e9).round() / 1e9;
        assert_eq!((third(classes[0].precision), third(classes[0].recall)), (2.0, 2.0));
        assert_eq!((third(classes[1].precision), classes[1].recall), (1.0, 0.5));
        assert_eq!((classes[1].f1, classes[1].support), (0.4, 2));
        assert_eq!((classes[2].precision, classes[2].recall, classes[2].f1), (0.0, 0.0, 0.0));
    }
}
