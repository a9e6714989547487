//! A data set whose labels are what a teacher says of its samples.

use std::{collections::HashMap, sync::Arc};

use cleave_shared::{
    data::{Dataset, Split, Target},
    model::Port,
};

/// The samples of another set, with the teacher's logits in place of their labels.
pub struct Taught {
    samples: Arc<dyn Dataset>,
    /// Of the samples that are asked for; others count as zeros.
    logits: HashMap<usize, Vec<f32>>,
    width: usize,
}

impl Taught {
    pub fn new(samples: Arc<dyn Dataset>, logits: HashMap<usize, Vec<f32>>, width: usize) -> Self {
        Self { samples, logits, width }
    }
}

impl Dataset for Taught {
    fn name(&self) -> &str {
        self.samples.name()
    }

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn inputs(&self) -> Vec<Port> {
        self.samples.inputs()
    }

    fn target(&self) -> Target {
        Target::Values { names: (0..self.width).map(|i| i.to_string()).collect() }
    }

    fn write_input(&self, index: usize, input: usize, out: &mut Vec<u8>) {
        self.samples.write_input(index, input, out);
    }

    fn write_label(&self, index: usize, out: &mut Vec<u8>) {
        match self.logits.get(&index) {
            Some(logits) => logits.iter().for_each(|v| out.extend(v.to_le_bytes())),
            None => out.extend(std::iter::repeat_n(0, self.width * size_of::<f32>())),
        }
    }

    fn split(&self, seed: u64) -> Split {
        self.samples.split(seed)
    }
}

#[cfg(test)]
mod tests {
    use cleave_shared::data::{DataSpec, gather};

    use super::*;

    #[test]
    fn samples_stay_and_labels_are_the_teachers() {
        let digits = DataSpec::Digits.open().unwrap();
        let logits = HashMap::from([(3, vec![1.0, -2.0]), (7, vec![0.5, 4.0])]);
        let taught = Taught::new(digits.clone(), logits, 2);
        let (batch, plain) = (gather(&taught, &[7, 3, 4]), gather(&*digits, &[7, 3, 4]));
        assert_eq!(batch.inputs, plain.inputs);
        assert_eq!(batch.labels.shape(), [3, 2]);
        assert_eq!(batch.labels.to_f32().unwrap(), [0.5, 4.0, 1.0, -2.0, 0.0, 0.0]);
        assert_eq!(taught.split(7), digits.split(7));
    }
}
