//! A split model is the same model: bit for bit in inference, and in training as far as the order
//! of the same additions goes.

use burn::tensor::TensorData;
use cleave_shared::{
    codec::F32,
    model::{
        LenetSpec, LoadedWeights, LossKind, MlpSpec, ModelError, ModelSpec, OptimizerSpec,
        ParamSpec, SeededWeights, Segment, Weights,
    },
    tensor::{self, HostTensor},
    wire::{self, NamedTensors},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 3;
const STEPS: u64 = 50;
/// Of the largest value: what 50 steps may differ by.
const TOLERANCE: f64 = 1e-6;

fn models() -> [ModelSpec; 2] {
    [
        ModelSpec::Lenet(LenetSpec {
            input: [1, 8, 8],
            channels: vec![8, 16],
            hidden: vec![32],
            classes: 10,
        }),
        ModelSpec::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![48, 32], classes: 10 }),
    ]
}

fn batch(size: usize, step: u64) -> (NamedTensors, HostTensor) {
    let mut rng = ChaCha8Rng::seed_from_u64(step);
    let values: Vec<f32> = (0..size * 64).map(|_| rng.random_range(0.0..1.0)).collect();
    let labels: Vec<i64> = (0..size).map(|_| rng.random_range(0..10)).collect();
    let input = HostTensor::from_f32(vec![size, 1, 8, 8], &values);
    (vec![("x".into(), input)], HostTensor::from_i64(vec![size], &labels))
}

fn segment(spec: &ModelSpec, range: std::ops::Range<usize>, train: bool) -> Segment {
    Segment::build(spec, range, &mut SeededWeights(SEED), train).unwrap()
}

/// What the tensors are after the link.
fn shipped(tensors: NamedTensors) -> NamedTensors {
    wire::decode(wire::encode(tensors, &F32), &F32).unwrap()
}

#[test]
fn split_inference_is_unsplit_inference_bit_for_bit() {
    for spec in models() {
        let n = spec.stage_count();
        let whole = segment(&spec, 0..n, false);
        for size in [1, 7] {
            let (input, _) = batch(size, 1);
            let expected = whole.infer(&input).unwrap();
            for split in 0..=n {
                let activation = segment(&spec, 0..split, false).infer(&input).unwrap();
                let tail = segment(&spec, split..n, false);
                let output = shipped(tail.infer(&shipped(activation)).unwrap());
                assert_eq!(output, expected, "{} split at {split}", spec.family_name());
            }
        }
    }
}

#[test]
fn an_answer_depends_on_its_batch_by_rounding_alone() {
    for spec in models() {
        let whole = segment(&spec, 0..spec.stage_count(), false);
        let (input, _) = batch(7, 1);
        let expected = whole.infer(&input).unwrap().remove(0).1;
        for parts in [vec![1; 7], vec![2, 5], vec![3, 1, 3]] {
            let apart = tensor::batch::split(&input[0].1, &parts).unwrap().into_iter();
            let outputs: Vec<_> =
                apart.map(|x| whole.infer(&vec![("x".into(), x)]).unwrap().remove(0).1).collect();
            let together = tensor::batch::join(&outputs.iter().collect::<Vec<_>>()).unwrap();
            let what = format!("{} as {parts:?}", spec.family_name());
            assert_close(&what, &together.to_f32().unwrap(), &expected.to_f32().unwrap());
        }
    }
}

struct Trained {
    losses: Vec<f32>,
    weights: NamedTensors,
}

fn train_whole(spec: &ModelSpec, loss: LossKind, optimizer: &OptimizerSpec) -> Trained {
    let mut whole = segment(spec, 0..spec.stage_count(), true);
    let step = |step| {
        let (input, labels) = batch(16, step);
        whole.tail_step(&input, &labels, loss, optimizer, false).unwrap().loss
    };
    let losses = (1..=STEPS).map(step).collect();
    Trained { losses, weights: whole.weights() }
}

fn train_split(
    spec: &ModelSpec,
    split: usize,
    loss: LossKind,
    optimizer: &OptimizerSpec,
) -> Trained {
    let mut head = segment(spec, 0..split, true);
    let mut tail = segment(spec, split..spec.stage_count(), true);
    let wanted = head.has_parameters();
    let step = |step| {
        let (input, labels) = batch(16, step);
        let (activation, pass) = head.head_forward(&input).unwrap();
        let activation = shipped(activation);
        let done = tail.tail_step(&activation, &labels, loss, optimizer, wanted).unwrap();
        if wanted {
            head.head_backward(pass, &shipped(done.gradient), optimizer).unwrap();
        } else {
            assert!(done.gradient.is_empty());
        }
        done.loss
    };
    let losses = (1..=STEPS).map(step).collect();
    let weights = head.weights().into_iter().chain(tail.weights()).collect();
    Trained { losses, weights }
}

fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let pairs = found.iter().zip(expected);
    let worst = pairs.fold(0.0f64, |m, (a, b)| m.max(f64::from((a - b).abs())));
    assert!(found.len() == expected.len() && worst <= TOLERANCE * largest, "{what}: {worst:e}");
}

#[test]
fn split_training_is_unsplit_training() {
    let sgd = OptimizerSpec::Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 };
    let adam = OptimizerSpec::Adam {
        learning_rate: 0.001,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    for spec in models() {
        for (loss, optimizer) in [(LossKind::CrossEntropy, &sgd), (LossKind::Mse, &adam)] {
            let whole = train_whole(&spec, loss, optimizer);
            assert!(whole.losses[49] < whole.losses[0], "it learns: {:?}", whole.losses);
            for split in 0..=spec.stage_count() {
                let what = format!("{} split at {split}, {loss:?}", spec.family_name());
                let trained = train_split(&spec, split, loss, optimizer);
                assert_close(&what, &trained.losses, &whole.losses);
                assert_eq!(trained.weights.len(), whole.weights.len());
                for ((name, found), (other, expected)) in trained.weights.iter().zip(&whole.weights)
                {
                    assert_eq!(name, other);
                    let what = format!("{what}: {name}");
                    assert_close(&what, &found.to_f32().unwrap(), &expected.to_f32().unwrap());
                }
            }
        }
    }
}

/// Notes which parameters are asked for.
struct Recorder {
    names: Vec<String>,
    inner: SeededWeights,
}

impl Weights for Recorder {
    fn data(&mut self, param: &ParamSpec<'_>) -> Result<TensorData, ModelError> {
        self.names.push(param.name.into());
        self.inner.data(param)
    }
}

#[test]
fn a_node_allocates_only_its_own_stages() {
    for spec in models() {
        let names = spec.stage_names();
        for split in 0..=spec.stage_count() {
            for range in [0..split, split..spec.stage_count()] {
                let mut weights = Recorder { names: Vec::new(), inner: SeededWeights(1) };
                Segment::build(&spec, range.clone(), &mut weights, false).unwrap();
                let own = &names[range];
                let mut stages = weights.names.iter().map(|n| n.split('.').next().unwrap());
                assert!(stages.all(|s| own.contains(&s.to_string())), "{:?}", weights.names);
            }
        }
    }
}

#[test]
fn a_restored_segment_goes_on_bit_for_bit() {
    let sgd = OptimizerSpec::Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 };
    let adam = OptimizerSpec::Adam {
        learning_rate: 0.001,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    for (spec, optimizer) in models().into_iter().zip([adam, sgd]) {
        let n = spec.stage_count();
        let mut whole = segment(&spec, 0..n, true);
        let step = |segment: &mut Segment, step| {
            let (input, labels) = batch(16, step);
            let loss = LossKind::CrossEntropy;
            segment.tail_step(&input, &labels, loss, &optimizer, false).unwrap().loss
        };
        (1..=10).for_each(|i| {
            step(&mut whole, i);
        });
        let state = whole.state().unwrap();
        let weights = state.iter().flat_map(|s| s.weights.clone()).collect();
        let mut source = LoadedWeights::new(weights);
        let mut restored = Segment::build(&spec, 0..n, &mut source, true).unwrap();
        for stage in state {
            restored.load_optimizer(&stage.stage, &optimizer, stage.optimizer).unwrap();
        }
        for i in 11..=20 {
            assert_eq!(step(&mut restored, i).to_bits(), step(&mut whole, i).to_bits());
        }
        assert_eq!(restored.weights(), whole.weights());
    }
}
