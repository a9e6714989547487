//! Early exits: small classifiers behind stages of the head, which answer for samples that they are
//! sure of (BranchyNet: Teerapittayanon, McDanel and Kung, ICPR 2016; across a cut, SPINN: Laskaris et
//! al., MobiCom 2020).
//!
//! An exit pools what its stage gave to a few numbers a channel, and one linear layer makes logits of
//! them. Its confidence in a sample is the greatest probability that their softmax has. Samples are
//! judged one by one: [`Segment::infer_past`] lets those out of the batch that an exit is sure of, and
//! only the others go on.

use burn::{
    module::{Module, Param},
    tensor::{
        Device, Tensor,
        module::{adaptive_avg_pool2d, linear},
    },
};

use super::{
    Activation, Init, ModelError, ModelSpec, Params, Port, Segment, Value, Weights,
    blocks::shape_error, loss::argmax, segment::infer_one,
};
use crate::{tensor::DType, wire::NamedTensors};

/// Maps are averaged to at most this height and width. Over all of it, as classifiers at the end of a
/// network do, an early stage's small receptive field would lose where things are.
const GRID: usize = 2;
/// Marks the positions of a sequence that are no padding, as encoders pass it along.
const MASK: &str = "attention_mask";

/// The classifier of an exit: `[batch, features]` → `[batch, classes]`
#[derive(Module, Debug)]
pub struct ExitHead {
    /// `[classes, features]`
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

/// Names of an exit's parameters.
pub const EXIT_WEIGHT: &str = "exit.weight";
pub const EXIT_BIAS: &str = "exit.bias";

impl ExitHead {
    pub fn new(
        [features, classes]: [usize; 2],
        weights: &mut dyn Weights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut params = Params::new(weights, device);
        Ok(Self {
            weight: params.param(EXIT_WEIGHT, [classes, features], Init::Zeros)?,
            bias: params.param(EXIT_BIAS, [classes], Init::Zeros)?,
        })
    }

    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        linear(features, self.weight.val().transpose(), Some(self.bias.val()))
    }

    /// The same classifier for features that are not standardised: `forward` of it at `x` is that of
    /// this one at `(x - mean) / deviation`. `[features]` each.
    pub fn unstandardised(&self, mean: Tensor<1>, deviation: Tensor<1>) -> NamedTensors {
        let weight = self.weight.val() / deviation.unsqueeze();
        let shift = weight.clone() * mean.unsqueeze();
        let bias = self.bias.val() - shift.sum_dim(1).squeeze_dim::<1>(1);
        let named = Activation::default()
            .with(EXIT_WEIGHT, Value::R2(weight))
            .with(EXIT_BIAS, Value::R1(bias));
        named.into_host()
    }
}

/// An exit in its place.
#[derive(Debug)]
pub struct Exit {
    /// The stage that it is behind.
    pub stage: String,
    /// Stages before it: the least split point at which the edge has it.
    pub after: usize,
    pub head: ExitHead,
}

/// Features and classes of an exit behind the first `after` stages, or why there cannot be one.
pub fn exit_sizes(spec: &ModelSpec, after: usize) -> Result<[usize; 2], String> {
    let (stages, family) = (spec.stages(), spec.family_name());
    let classes = match &spec.outputs()[..] {
        [port] if port.dtype == DType::F32 && port.shape.len() == 1 => port.largest()[0],
        _ => return Err(format!("a {family} gives no logits of classes, which an exit needs")),
    };
    if !(1..stages.len()).contains(&after) {
        let last = stages.len() - 1;
        return Err(format!("an exit is behind one of the first {last} stages of this {family}"));
    }
    let plan = &stages[after - 1];
    let floats = plan.outputs.iter().filter(|port| port.dtype == DType::F32);
    match &floats.collect::<Vec<&Port>>()[..] {
        [port] => Ok([features(&port.largest()), classes]),
        several => {
            let (stage, count) = (&plan.name, several.len());
            Err(format!("{count} tensors of numbers leave {stage}: an exit needs one"))
        }
    }
}

fn features(shape: &[usize]) -> usize {
    match *shape {
        [channels, height, width] => channels * height.min(GRID) * width.min(GRID),
        [_, features] => features,
        _ => shape.iter().product(),
    }
}

/// What an exit behind `stage` looks at, `[batch, features]`: maps averaged to a small grid, sequences
/// over their positions, vectors as they are.
pub fn pooled(stage: &str, activation: &Activation) -> Result<Tensor<2>, ModelError> {
    let mask = match activation.get(MASK) {
        Some(Value::I2(mask)) => Some(mask.clone().float()),
        _ => None,
    };
    let mut floats = activation.values().filter(|value| !value.is_int());
    let (Some(value), None) = (floats.next(), floats.next()) else {
        return Err(ModelError::Input {
            stage: stage.into(),
            expected: "one tensor of numbers for its exit".into(),
            found: format!("{:?}", activation.names()),
        });
    };
    match value.clone() {
        Value::R2(t) => Ok(t),
        Value::R3(t) => Ok(mean_position(t, mask)),
        Value::R4(t) => {
            let [_, _, height, width] = t.dims();
            Ok(adaptive_avg_pool2d(t, [height.min(GRID), width.min(GRID)]).flatten(1, 3))
        }
        other => Err(shape_error(stage, "rank 2 to 4 for its exit".into(), &other.dims())),
    }
}

/// `[batch, positions, features]` → `[batch, features]`, of the positions that the mask has.
fn mean_position(x: Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<2> {
    match mask {
        None => x.mean_dim(1).squeeze_dim(1),
        Some(mask) => {
            let count = mask.clone().sum_dim(1).clamp_min(1.0);
            let sum: Tensor<2> = (x * mask.unsqueeze_dim(2)).sum_dim(1).squeeze_dim(1);
            sum / count
        }
    }
}

/// The greatest probability of the softmax over these logits; NaN if one of them is.
pub fn confidence(logits: &[f32]) -> f32 {
    let most = logits.get(argmax(logits)).copied().unwrap_or(f32::NAN);
    1.0 / logits.iter().map(|v| (v - most).exp()).sum::<f32>()
}

/// The answer of an exit to one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitAnswer {
    /// Its place in the batch.
    pub sample: usize,
    /// Its place among the exits.
    pub exit: usize,
    pub logits: Vec<f32>,
}

/// A batch behind a head with exits.
#[derive(Debug, Clone, Default)]
pub struct Passage {
    /// Samples that left.
    pub left: Vec<ExitAnswer>,
    /// What the last exit would have answered to those that did not, in their order.
    pub spare: Vec<ExitAnswer>,
    /// What goes on: as many samples as there are in `spare`.
    pub activation: NamedTensors,
}

impl Segment {
    /// Inference of a head in which samples leave where an exit is at least so sure of them. `exits`
    /// are in the order of their stages, and behind stages of this segment, which is the model's first.
    pub fn infer_past(
        &self,
        input: &NamedTensors,
        exits: &[Exit],
        threshold: f32,
    ) -> Result<Passage, ModelError> {
        let mut x = Activation::from_host(input, &self.device)?;
        let batch = x.values().next().and_then(|v| v.dims().first().copied()).unwrap_or(0);
        let mut rest: Vec<usize> = (0..batch).collect();
        let mut passage = Passage::default();
        for (i, stage) in self.stages.iter().enumerate() {
            x = infer_one(stage.as_ref(), x)?;
            let here = exits.iter().enumerate().filter(|(_, exit)| exit.after == i + 1);
            for (number, exit) in here {
                let answers = exit.answers(number, &x, &rest)?;
                let sure = |answer: &ExitAnswer| confidence(&answer.logits) >= threshold;
                let stays: Vec<usize> = (0..rest.len()).filter(|&i| !sure(&answers[i])).collect();
                let (left, spare) = answers.into_iter().partition(sure);
                passage.left.extend::<Vec<_>>(left);
                passage.spare = spare;
                if stays.is_empty() {
                    return Ok(passage);
                }
                if stays.len() < rest.len() {
                    x = x.map(|value| value.pick(&stays, &self.device));
                    rest = stays.into_iter().map(|i| rest[i]).collect();
                }
            }
        }
        passage.activation = x.into_host();
        Ok(passage)
    }

    /// What exits at these places would look at, one after the other: `[batch, features]` each.
    pub fn exit_features(
        &self,
        input: &NamedTensors,
        places: &[usize],
    ) -> Result<Vec<Tensor<2>>, ModelError> {
        let mut found = Vec::new();
        self.infer_observed(input, |i, x| {
            for _ in places.iter().filter(|&&place| place == i + 1) {
                found.push(pooled(self.stages[i].name(), x)?);
            }
            Ok(())
        })?;
        Ok(found)
    }
}

impl Exit {
    /// What it answers to each sample; `places` are theirs in the batch.
    fn answers(
        &self,
        number: usize,
        activation: &Activation,
        places: &[usize],
    ) -> Result<Vec<ExitAnswer>, ModelError> {
        let logits = self.head.forward(pooled(&self.stage, activation)?);
        let [_, classes] = logits.dims();
        let values: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let rows = values.chunks_exact(classes).zip(places);
        let answer = |(row, &sample): (&[f32], &usize)| ExitAnswer {
            sample,
            exit: number,
            logits: row.to_vec(),
        };
        Ok(rows.map(answer).collect())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::softmax;

    use super::*;
    use crate::{
        config::Config,
        model::{LoadedWeights, SeededWeights},
        tensor::HostTensor,
    };

    fn head(classes: usize, features: usize, weight: &[f32], bias: &[f32]) -> ExitHead {
        let named = vec![
            (EXIT_WEIGHT.into(), HostTensor::from_f32(vec![classes, features], weight)),
            (EXIT_BIAS.into(), HostTensor::from_f32(vec![classes], bias)),
        ];
        let mut weights = LoadedWeights::new(named);
        ExitHead::new([features, classes], &mut weights, &Device::flex()).unwrap()
    }

    #[test]
    fn confidence_is_the_greatest_probability() {
        let by_burn = |row: &[f32]| {
            let row = Tensor::<1>::from_floats(row, &Device::flex());
            softmax(row, 0).max().into_scalar::<f32>()
        };
        for row in [&[0.0, 0.0][..], &[3.0, 1.0, -2.0], &[-50.0, 90.0], &[1e4, -1e4, 9e3]] {
            assert!((confidence(row) - by_burn(row)).abs() < 1e-6, "{row:?}");
        }
        assert!(confidence(&[0.0, f32::NAN]).is_nan());
    }

    #[test]
    fn samples_leave_where_an_exit_is_sure_and_the_rest_is_as_without_exits() {
        let spec = Config::default().model;
        let segment = Segment::build(&spec, 0..4, &mut SeededWeights(5), false).unwrap();
        let pixels: Vec<f32> = (0..6 * 64).map(|i| ((i * 37) % 64) as f32 / 64.0).collect();
        let input = vec![("x".to_string(), HostTensor::from_f32(vec![6, 1, 8, 8], &pixels))];
        // The one is sure of nothing; the other of those in which the first feature is large.
        let never = head(10, 128, &[0.0; 1280], &[0.0; 10]);
        let [_, deep] = &segment.exit_features(&input, &[2, 4]).unwrap()[..] else { panic!() };
        let first: Vec<f32> = deep.clone().narrow(1, 0, 1).into_data().iter::<f32>().collect();
        let mut sorted = first.clone();
        sorted.sort_by(f32::total_cmp);
        let middle = (sorted[2] + sorted[3]) / 2.0;
        let (scale, mut weight, mut bias) = (1e6, vec![0.0; 10 * 256], vec![0.0; 10]);
        (weight[0], bias[0]) = (scale, -scale * middle);
        // Sure of class 0 where the feature is over the middle; else all others are as likely.
        let exits = [
            Exit { stage: "pool1".into(), after: 2, head: never },
            Exit { stage: "pool2".into(), after: 4, head: head(10, 256, &weight, &bias) },
        ];
        let passage = segment.infer_past(&input, &exits, 0.9).unwrap();
        let sure: Vec<usize> = (0..6).filter(|&i| first[i] > middle).collect();
        let unsure: Vec<usize> = (0..6).filter(|&i| first[i] <= middle).collect();
        assert_eq!(passage.left.iter().map(|a| a.sample).collect::<Vec<_>>(), sure);
        assert!(passage.left.iter().all(|a| a.exit == 1 && argmax(&a.logits) == 0));
        assert_eq!(passage.spare.iter().map(|a| a.sample).collect::<Vec<_>>(), unsure);
        let whole = segment.infer(&input).unwrap()[0].1.to_f32().unwrap();
        let kept: Vec<f32> =
            unsure.iter().flat_map(|&i| whole[i * 256..(i + 1) * 256].to_vec()).collect();
        assert_eq!(passage.activation[0].1.to_f32().unwrap(), kept);

        let all = segment.infer_past(&input, &exits, 0.0).unwrap();
        assert!(all.activation.is_empty() && all.spare.is_empty());
        assert_eq!(all.left.iter().map(|a| a.exit).collect::<Vec<_>>(), [0; 6]);
        let none = segment.infer_past(&input, &exits, f32::INFINITY).unwrap();
        assert_eq!((none.left.len(), none.spare.len()), (0, 6));
        assert_eq!(none.activation, segment.infer(&input).unwrap());
    }

    #[test]
    fn padding_does_not_change_what_an_exit_sees() {
        let device = Device::flex();
        let x = |values: &[f32], n: usize| {
            Value::from_host(&HostTensor::from_f32(vec![1, n, 2], values), &device).unwrap()
        };
        let mask = |values: &[i64]| {
            let tensor = HostTensor::from_i64(vec![1, values.len()], values);
            Value::from_host(&tensor, &device).unwrap()
        };
        let short = Activation::single(x(&[1.0, 2.0, 3.0, 4.0], 2)).with(MASK, mask(&[1, 1]));
        let padded = Activation::single(x(&[1.0, 2.0, 3.0, 4.0, 9.0, 9.0], 3));
        let padded = padded.with(MASK, mask(&[1, 1, 0]));
        let seen = |a: &Activation| pooled("s", a).unwrap().into_data().iter::<f32>().collect();
        let seen: [Vec<f32>; 2] = [seen(&short), seen(&padded)];
        assert_eq!(seen, [vec![2.0, 3.0], vec![2.0, 3.0]]);
    }

    #[test]
    fn a_standardised_head_is_the_same_head_on_raw_features() {
        let device = Device::flex();
        let raw = Tensor::<2>::from_floats([[4.0, -3.0], [0.5, 8.0]], &device);
        let mean = Tensor::<1>::from_floats([1.0, 2.0], &device);
        let deviation = Tensor::<1>::from_floats([0.5, 4.0], &device);
        let scaled = (raw.clone() - mean.clone().unsqueeze()) / deviation.clone().unsqueeze();
        let trained = head(3, 2, &[1.0, 2.0, -1.0, 0.5, 0.0, 3.0], &[0.1, 0.2, 0.3]);
        let expected: Vec<f32> = trained.forward(scaled).into_data().iter::<f32>().collect();
        let mut folded = LoadedWeights::new(trained.unstandardised(mean, deviation));
        let folded = ExitHead::new([2, 3], &mut folded, &device).unwrap();
        let found: Vec<f32> = folded.forward(raw).into_data().iter::<f32>().collect();
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
    }

    #[test]
    fn what_cannot_have_an_exit_is_refused() {
        let spec = Config::default().model;
        assert_eq!(exit_sizes(&spec, 2).unwrap(), [32 * 4, 10]);
        assert_eq!(exit_sizes(&spec, 5).unwrap(), [128, 10]);
        for bad in [0, 6] {
            let text = exit_sizes(&spec, bad).unwrap_err();
            assert!(text.contains("first 5 stages of this lenet"), "{text}");
        }
        let gpt2 = crate::model::model_by_name("gpt2").unwrap();
        assert!(exit_sizes(&gpt2, 1).unwrap_err().contains("no logits of classes"));
    }
}
