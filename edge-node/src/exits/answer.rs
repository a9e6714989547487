//! A request with exits: its samples part, and its answers come together in the order of the samples.

use std::{collections::BTreeMap, sync::Arc};

use cleave_shared::{
    model::{Exit, ExitAnswer, ModelError, Passage, Segment, confidence},
    tensor::HostTensor,
    wire::NamedTensors,
};
use metrics::counter;

use crate::serve::{ExitUse, InferError};

/// Where a sample left that all of the model has answered.
const NONE: &str = "none";

/// What exits have answered of one request.
pub struct Left {
    exits: Arc<[Exit]>,
    answers: Vec<ExitAnswer>,
    /// What the deepest exit has for the samples that go on.
    spare: Vec<ExitAnswer>,
}

impl Left {
    /// Runs a head; gives what goes on as well.
    pub fn of(
        head: &Segment,
        exits: Arc<[Exit]>,
        inputs: &NamedTensors,
        threshold: f64,
    ) -> Result<(NamedTensors, Self), ModelError> {
        // A softmax may well be 1 in FP32, and 1 says that none leaves.
        let threshold = if threshold < 1.0 { threshold as f32 } else { f32::INFINITY };
        let passage = head.infer_past(inputs, &exits, threshold)?;
        let Passage { left: answers, spare, activation } = passage;
        Ok((activation, Self { exits, answers, spare }))
    }

    /// Whether nothing goes on.
    pub fn is_all(&self) -> bool {
        self.spare.is_empty()
    }

    /// Of so many bytes for all samples, those for the samples that go on.
    pub fn share_of_rest(&self, bytes: usize) -> usize {
        let all = self.answers.len() + self.spare.len();
        bytes / all.max(1) * self.spare.len()
    }

    /// The answer to all samples, with what the rest of the model gave to those that went on. If it gave
    /// nothing because the cloud does not answer, and `when_offline`, the deepest exit answers them too.
    pub fn complete(
        mut self,
        rest: Result<NamedTensors, InferError>,
        when_offline: bool,
    ) -> Result<(NamedTensors, ExitUse), InferError> {
        let mut answers = BTreeMap::new();
        let mut offline = false;
        match rest {
            Ok(tensors) => {
                let rows = rows(tensors, self.spare.len())?;
                let samples = self.spare.iter().map(|spare| spare.sample);
                answers.extend(samples.zip(rows).map(|(sample, row)| (sample, (NONE, row))));
            }
            Err(InferError::Unavailable(_) | InferError::Deadline(_)) if when_offline => {
                offline = true;
                self.answers.append(&mut self.spare);
            }
            Err(error) => return Err(error),
        }
        for ExitAnswer { sample, exit, logits } in self.answers {
            answers.insert(sample, (&self.exits[exit].stage, logits));
        }
        let names: Vec<&str> = answers.values().map(|(name, _)| *name).collect();
        count(&names, offline);
        let sure = answers.values().map(|(_, row)| f64::from(confidence(row)));
        let exit_use = ExitUse {
            exit: summary(&names),
            confidence: sure.fold(f64::INFINITY, f64::min).min(1.0),
            offline,
        };
        let classes = answers.values().next().map_or(0, |(_, row)| row.len());
        let values: Vec<f32> = answers.into_values().flat_map(|(_, row)| row).collect();
        let output = HostTensor::from_f32(vec![names.len(), classes], &values);
        Ok((vec![("x".into(), output)], exit_use))
    }
}

/// The logits of so many samples; none of none.
fn rows(tensors: NamedTensors, samples: usize) -> Result<Vec<Vec<f32>>, InferError> {
    let bad = |problem: String| InferError::Internal(format!("the model's answer: {problem}"));
    if samples == 0 {
        return Ok(Vec::new());
    }
    let [(_, logits)] = &tensors[..] else {
        return Err(bad(format!("{} tensors, not one", tensors.len())));
    };
    match *logits.shape() {
        [found, classes] if found == samples && classes > 0 => {
            let values = logits.to_f32().map_err(|e| bad(e.to_string()))?;
            Ok(values.chunks_exact(classes).map(<[f32]>::to_vec).collect())
        }
        ref found => Err(bad(format!("shape {found:?} for {samples} samples"))),
    }
}

/// One name if all are the same, else all of them.
fn summary(names: &[&str]) -> String {
    match names {
        [first, others @ ..] if others.iter().all(|name| name == first) => (*first).into(),
        _ => names.join(","),
    }
}

/// Adds to the counters of `GET /metrics`.
fn count(names: &[&str], offline: bool) {
    let mut samples: BTreeMap<&str, u64> = BTreeMap::new();
    names.iter().for_each(|name| *samples.entry(name).or_default() += 1);
    for (name, samples) in samples {
        let offline = if offline { "true" } else { "false" };
        counter!("cleave_exit_samples_total", "exit" => name.to_string(), "offline" => offline)
            .increment(samples);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use cleave_shared::model::{ExitHead, SeededWeights};

    use super::*;

    fn answer(sample: usize, exit: usize, logits: [f32; 2]) -> ExitAnswer {
        ExitAnswer { sample, exit, logits: logits.to_vec() }
    }

    /// Samples 1 and 3 of five have left at the first exit, 4 at the second.
    fn left() -> Left {
        let exit = |stage: &str, after| {
            let head = ExitHead::new([3, 2], &mut SeededWeights(1), &Device::flex()).unwrap();
            Exit { stage: stage.into(), after, head }
        };
        Left {
            exits: Arc::new([exit("pool1", 2), exit("pool2", 4)]),
            answers: vec![
                answer(1, 0, [0.0, 9.0]),
                answer(3, 0, [9.0, 1.0]),
                answer(4, 1, [8.0, 0.0]),
            ],
            spare: vec![answer(0, 1, [0.5, 0.6]), answer(2, 1, [0.0, 0.1])],
        }
    }

    fn logits(values: &[f32]) -> NamedTensors {
        vec![("x".into(), HostTensor::from_f32(vec![values.len() / 2, 2], values))]
    }

    #[test]
    fn answers_come_together_in_the_order_of_the_samples() {
        let left = left();
        assert_eq!((left.is_all(), left.share_of_rest(5 * 8)), (false, 2 * 8));
        let (output, used) = left.complete(Ok(logits(&[3.0, 1.0, 0.0, 2.0])), true).unwrap();
        let expected = [3.0, 1.0, 0.0, 9.0, 0.0, 2.0, 9.0, 1.0, 8.0, 0.0];
        assert_eq!(output[0].1, HostTensor::from_f32(vec![5, 2], &expected));
        assert_eq!((used.exit.as_str(), used.offline), ("none,pool1,none,pool1,pool2", false));
        let least = 1.0 / (1.0 + (-2f64).exp());
        assert!((used.confidence - least).abs() < 1e-6, "{used:?}");
    }

    #[test]
    fn without_a_cloud_the_deepest_exit_answers_the_rest() {
        let gone = || Err(InferError::Unavailable("gone".into()));
        let (output, used) = left().complete(gone(), true).unwrap();
        let expected = [0.5, 0.6, 0.0, 9.0, 0.0, 0.1, 9.0, 1.0, 8.0, 0.0];
        assert_eq!(output[0].1, HostTensor::from_f32(vec![5, 2], &expected));
        assert_eq!((used.exit.as_str(), used.offline), ("pool2,pool1,pool2,pool1,pool2", true));
        assert!(used.confidence < 0.53, "{used:?}");
        assert!(matches!(left().complete(gone(), false), Err(InferError::Unavailable(_))));
        let busy = Err(InferError::Busy("full".into()));
        assert!(matches!(left().complete(busy, true), Err(InferError::Busy(_))));
    }

    #[test]
    fn a_batch_of_one_exit_has_one_name_and_a_wrong_answer_is_refused() {
        let all = Left { spare: Vec::new(), answers: left().answers, ..left() };
        assert!(all.is_all());
        let renumbered =
            (0..3).map(|i| ExitAnswer { sample: i, exit: 0, ..all.answers[i].clone() });
        let one = Left { answers: renumbered.collect(), ..left() };
        let one = Left { spare: Vec::new(), ..one };
        let (output, used) = one.complete(Ok(NamedTensors::new()), true).unwrap();
        assert_eq!((output[0].1.shape(), used.exit.as_str()), (&[3, 2][..], "pool1"));
        let short = left().complete(Ok(logits(&[3.0, 1.0])), true).unwrap_err();
        assert!(short.to_string().contains("shape [1, 2] for 2 samples"), "{short}");
    }
}
