//! Quantisation, pruning and LoRA on a split model: what they promise, measured.

use std::{collections::HashMap, fs, process::Command};

use cleave_shared::{
    data::{Batch, BatchPlan, DataSpec, Dataset, Part, Split, gather},
    model::{
        AlexnetSpec, Gpt2Spec, LenetSpec, LoadedWeights, LoraSpec, LossKind, MergedWeights,
        MlpSpec, ModelSpec, OptimizerSpec, SeededWeights, Segment, Sides, VggSpec, WeightFormat,
        Weights, lora::is_factor, prune_filters, prune_smallest,
    },
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};
use safetensors::{Dtype, tensor::TensorView};

const SEED: u64 = 7;
const BATCH: usize = 32;

fn lenet() -> ModelSpec {
    ModelSpec::Lenet(LenetSpec {
        input: [1, 8, 8],
        channels: vec![32, 64],
        hidden: vec![128],
        classes: 10,
    })
}

fn mlp() -> ModelSpec {
    ModelSpec::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![48, 32], classes: 10 })
}

fn adam(learning_rate: f64) -> OptimizerSpec {
    OptimizerSpec::Adam {
        learning_rate,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    }
}

fn loaded(weights: &NamedTensors) -> LoadedWeights {
    LoadedWeights::new(weights.clone())
}

/// The digits, with the parts that both nodes use.
struct Digits {
    data: std::sync::Arc<dyn Dataset>,
    split: Split,
    plan: BatchPlan,
}

impl Digits {
    fn open() -> Self {
        let data = DataSpec::Digits.open().unwrap();
        let split = Split::new(data.len(), SEED);
        let plan = BatchPlan::new(split.indices(Part::Train).to_vec(), BATCH, SEED).unwrap();
        Self { data, split, plan }
    }

    fn batch(&self, step: u64) -> Batch {
        gather(self.data.as_ref(), &self.plan.batch(step))
    }

    /// Share of the held-out digits that are classified right.
    fn accuracy(&self, model: &Segment) -> f64 {
        let test = self.split.indices(Part::Test);
        let Batch { inputs, labels } = gather(self.data.as_ref(), test);
        let loss = LossKind::CrossEntropy;
        let (_, correct) = model.evaluate(&inputs, &labels, loss).unwrap();
        correct as f64 / test.len() as f64
    }

    /// Trains a head and a tail for some epochs.
    fn train(&self, halves: &mut [Segment; 2], epochs: u64, optimizer: &OptimizerSpec) {
        for step in 1..=epochs * self.plan.steps_per_epoch() {
            let Batch { inputs, labels } = self.batch(step);
            train_step(halves, &inputs, &labels, optimizer);
        }
    }
}

/// One step of split training; no gradient crosses to a head that does not learn.
fn train_step(
    [head, tail]: &mut [Segment; 2],
    inputs: &NamedTensors,
    labels: &HostTensor,
    optimizer: &OptimizerSpec,
) -> f32 {
    let (activation, pass) = head.head_forward(inputs).unwrap();
    let (loss, wanted) = (LossKind::CrossEntropy, head.has_parameters());
    let done = tail.tail_step(&activation, labels, loss, optimizer, wanted).unwrap();
    if wanted {
        head.head_backward(pass, &done.gradient, optimizer).unwrap();
    }
    done.loss
}

fn halves(spec: &ModelSpec, split: usize, weights: &NamedTensors) -> [Segment; 2] {
    let build = |range| Segment::build(spec, range, &mut loaded(weights), true).unwrap();
    [build(0..split), build(split..spec.stage_count())]
}

fn weights_of(halves: &[Segment; 2]) -> NamedTensors {
    halves.iter().flat_map(|half| half.weights()).collect()
}

fn whole(spec: &ModelSpec, weights: &NamedTensors, format: WeightFormat) -> Segment {
    Segment::build_in(format, spec, 0..spec.stage_count(), &mut loaded(weights)).unwrap()
}

fn seeded(spec: &ModelSpec) -> NamedTensors {
    let stages = 0..spec.stage_count();
    Segment::build(spec, stages, &mut SeededWeights(SEED), false).unwrap().weights()
}

/// A LeNet that knows the digits.
fn trained_lenet(digits: &Digits) -> NamedTensors {
    let spec = lenet();
    let mut both = halves(&spec, 4, &seeded(&spec));
    digits.train(&mut both, 30, &adam(0.001));
    weights_of(&both)
}

#[test]
fn optimised_models_keep_their_accuracy() {
    let (digits, spec) = (Digits::open(), lenet());
    let weights = trained_lenet(&digits);
    let full = digits.accuracy(&whole(&spec, &weights, WeightFormat::Full));
    assert!(full > 0.95, "the model to start from knows the digits: {full}");

    // Quantisation.
    let accuracy = |format| digits.accuracy(&whole(&spec, &weights, format));
    let (int8, int4) = (accuracy(WeightFormat::Int8), accuracy(WeightFormat::Int4));
    println!("accuracy f32 {full:.4}, int8 {int8:.4}, int4 {int4:.4}");
    assert!((int8 - full).abs() <= 0.002, "int8 {int8}, f32 {full}");
    assert!(int4 > full - 0.05, "int4 {int4}, f32 {full}");

    // Magnitude pruning, then fine-tuning over the split.
    let pruned = prune_smallest(weights.clone(), 0.5);
    let before = digits.accuracy(&whole(&spec, &pruned, WeightFormat::Full));
    let mut both = halves(&spec, 4, &pruned);
    both.iter_mut().for_each(|half| half.sparsify(0.5));
    digits.train(&mut both, 3, &adam(0.001));
    let tuned = weights_of(&both);
    for ((name, found), (_, first)) in tuned.iter().zip(&pruned) {
        let (found, first) = (found.to_f32().unwrap(), first.to_f32().unwrap());
        let zeros = found.iter().filter(|v| **v == 0.0).count();
        if name.ends_with(".weight") {
            let expected = (found.len() as f64 * 0.5).round() as usize;
            assert_eq!(zeros, expected, "{name}");
            let same = found.iter().zip(&first).all(|(a, b)| (*a == 0.0) == (*b == 0.0));
            assert!(same, "{name}: the mask stays what it was");
        }
        assert_ne!(found, first, "{name} was fine-tuned");
    }
    let after = digits.accuracy(&whole(&spec, &tuned, WeightFormat::Full));
    println!("half the weights: {before:.4}, fine-tuned {after:.4}");
    assert!(after >= full - 0.01, "pruned and tuned {after}, before {full}");

    // Filter pruning: a smaller model of the same family.
    let (narrow, pruned) = prune_filters(&spec, &weights, 0.5).unwrap();
    let ModelSpec::Lenet(sizes) = &narrow else { panic!("still a LeNet") };
    assert_eq!(sizes.channels, [16, 32]);
    let before = digits.accuracy(&whole(&narrow, &pruned, WeightFormat::Full));
    let mut both = halves(&narrow, 4, &pruned);
    digits.train(&mut both, 6, &adam(0.001));
    let tuned = weights_of(&both);
    let small = whole(&narrow, &tuned, WeightFormat::Full);
    let after = digits.accuracy(&small);
    let large = whole(&spec, &weights, WeightFormat::Full).weight_bytes();
    println!(
        "half the filters: {before:.4}, fine-tuned {after:.4}; {large} to {} bytes",
        small.weight_bytes()
    );
    assert!(after >= full - 0.01, "narrow and tuned {after}, before {full}");
    assert!(small.weight_bytes() * 2 < large);
    same_at_every_split(&narrow, &tuned, WeightFormat::Full);
}

/// Inference at every split point is that of the whole model, bit for bit.
/// Filters that give nothing can go without a trace, in every family whose filters can.
#[test]
fn filters_of_zeros_go_without_a_trace() {
    let vgg = VggSpec {
        input: [3, 32, 32],
        channels: vec![vec![4, 6], vec![8, 4]],
        hidden: [16, 12],
        classes: 5,
    };
    let alexnet =
        AlexnetSpec { input: [3, 63, 63], channels: [4, 6, 8, 6, 4], hidden: [16, 12], classes: 5 };
    let specs = [lenet(), ModelSpec::Vgg(vgg), ModelSpec::Alexnet(alexnet)];
    for spec in specs {
        let layers = spec.filter_chain().unwrap().layers;
        let of_zeros =
            |name: &str| layers.iter().any(|l| name.starts_with(&format!("{}.", l.layer)));
        let zeroed = |(name, tensor): (String, HostTensor)| {
            if !of_zeros(&name) {
                return (name, tensor);
            }
            // Every other filter, and its bias.
            let each = tensor.elements() / tensor.shape()[0];
            let values = tensor.to_f32().unwrap().into_iter().enumerate();
            let values = values.map(|(i, v)| if (i / each).is_multiple_of(2) { 0.0 } else { v });
            (name, HostTensor::from_f32(tensor.shape().to_vec(), &values.collect::<Vec<_>>()))
        };
        let weights: NamedTensors = seeded(&spec).into_iter().map(zeroed).collect();
        let (narrow, pruned) = prune_filters(&spec, &weights, 0.5).unwrap();
        let elements: usize = spec.input_shape().iter().product();
        let values: Vec<f32> = (0..2 * elements).map(|i| (i as f32 * 0.37).sin()).collect();
        let shape = [vec![2], spec.input_shape()].concat();
        let input = vec![("x".to_string(), HostTensor::from_f32(shape, &values))];
        let answer = |spec: &ModelSpec, weights: &NamedTensors| {
            let output = whole(spec, weights, WeightFormat::Full).infer(&input).unwrap();
            output[0].1.to_f32().unwrap()
        };
        let (before, after) = (answer(&spec, &weights), answer(&narrow, &pruned));
        let off = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{}: {off:e}", spec.family_name());
        let bytes = |w: &NamedTensors| w.iter().map(|(_, t)| t.data().len()).sum::<usize>();
        assert!(bytes(&pruned) < bytes(&weights) * 2 / 3, "{}", spec.family_name());
    }
}

fn same_at_every_split(spec: &ModelSpec, weights: &NamedTensors, format: WeightFormat) {
    let stages = spec.stage_count();
    let digits = Digits::open();
    let Batch { inputs, .. } = digits.batch(1);
    let expected = whole(spec, weights, format).infer(&inputs).unwrap();
    for split in 0..=stages {
        let part = |range| Segment::build_in(format, spec, range, &mut loaded(weights)).unwrap();
        let activation = part(0..split).infer(&inputs).unwrap();
        let output = part(split..stages).infer(&activation).unwrap();
        assert_eq!(output, expected, "{format:?}, split at {split}");
    }
}

#[test]
fn a_quantised_model_is_the_same_at_every_split() {
    for spec in [lenet(), mlp()] {
        for format in [WeightFormat::Int8, WeightFormat::Int4] {
            same_at_every_split(&spec, &seeded(&spec), format);
        }
    }
}

#[test]
fn quantised_weights_take_the_memory_that_they_should() {
    let spec = ModelSpec::Mlp(MlpSpec { input: [1, 32, 32], hidden: vec![1024], classes: 1024 });
    let weights = seeded(&spec);
    let bytes = |format| whole(&spec, &weights, format).weight_bytes();
    let full = bytes(WeightFormat::Full);
    assert_eq!(full, 4 * 2 * (1024 * 1024 + 1024));
    let (int8, int4) = (bytes(WeightFormat::Int8), bytes(WeightFormat::Int4));
    let ratio = |bytes: usize| full as f64 / bytes as f64;
    println!("{full} bytes, int8 {int8} ({:.2}x), int4 {int4} ({:.2}x)", ratio(int8), ratio(int4));
    assert!(ratio(int8) >= 3.9 && ratio(int4) >= 7.0);
}

/// A split model with adapters on the sides that `lora` names.
fn adapted(
    spec: &ModelSpec,
    split: usize,
    weights: &NamedTensors,
    lora: &LoraSpec,
) -> [Segment; 2] {
    use cleave_shared::model::Side;
    let mut both = halves(spec, split, weights);
    for (half, side) in both.iter_mut().zip([Side::Edge, Side::Cloud]) {
        let here = lora.sides.include(side).then_some(lora);
        half.adapt(spec, here, &mut SeededWeights(lora.seed)).unwrap();
    }
    both
}

/// Factors of adapters, and all other weights.
fn factors(weights: NamedTensors) -> (NamedTensors, NamedTensors) {
    weights.into_iter().partition(|(name, _)| is_factor(name))
}

#[test]
fn adapters_learn_and_the_base_does_not() {
    let (digits, spec) = (Digits::open(), lenet());
    let weights = seeded(&spec);
    let optimizer = adam(0.01);
    let Batch { inputs, labels } = digits.batch(1);
    let cases = [(Sides::Edge, ["fc1"].as_slice()), (Sides::Cloud, &["fc2"])];
    for (sides, layers) in cases.into_iter().chain([(Sides::Both, ["fc1", "fc2"].as_slice())]) {
        let lora = LoraSpec { rank: 4, sides, ..Default::default() };
        let mut both = adapted(&spec, 5, &weights, &lora);
        assert_eq!(both[0].has_parameters(), sides != Sides::Cloud, "who wants a gradient");
        let losses: Vec<f32> =
            (0..20).map(|_| train_step(&mut both, &inputs, &labels, &optimizer)).collect();
        assert!(losses[19] < losses[0] - 0.1, "{sides:?} learns: {losses:?}");
        let (learned, base) = factors(weights_of(&both));
        assert_eq!(base, weights, "{sides:?}: the base is what it was, bit for bit");
        let names: Vec<&str> = learned.iter().map(|(name, _)| name.as_str()).collect();
        let expected: Vec<String> =
            layers.iter().flat_map(|l| cleave_shared::model::lora::factor_names(l)).collect();
        assert_eq!(names, expected);
        // A checkpoint has the adapters, and nothing else.
        let state = both.iter().flat_map(|half| half.state().unwrap());
        let stored: NamedTensors = state.flat_map(|s| s.weights).collect();
        assert_eq!(stored, learned);

        // What is served: the base with the adapters in it, which is what was trained.
        let base: Box<dyn Weights> = Box::new(loaded(&weights));
        let mut merged = MergedWeights::new(base, learned, lora.scale(), |_| false);
        let stages = spec.stage_count();
        let served = Segment::build(&spec, 0..stages, &mut merged, false).unwrap();
        let activation = both[0].infer(&inputs).unwrap();
        assert_eq!(served.infer(&inputs).unwrap(), both[1].infer(&activation).unwrap());
    }
    let nothing = LoraSpec { targets: vec!["conv9".into()], ..Default::default() };
    let [head, mut tail] = adapted(&spec, 4, &weights, &nothing);
    let activation = head.infer(&inputs).unwrap();
    let loss = LossKind::CrossEntropy;
    let refused = tail.tail_step(&activation, &labels, loss, &optimizer, false).err().unwrap();
    assert!(refused.to_string().contains("nothing learns"), "{refused}");
}

#[test]
fn a_restored_run_of_adapters_goes_on_bit_for_bit() {
    let (digits, spec) = (Digits::open(), mlp());
    let (weights, optimizer) = (seeded(&spec), adam(0.005));
    let lora = LoraSpec { rank: 3, ..Default::default() };
    let mut both = adapted(&spec, 1, &weights, &lora);
    let step = |both: &mut [Segment; 2], n| {
        let Batch { inputs, labels } = digits.batch(n);
        train_step(both, &inputs, &labels, &optimizer).to_bits()
    };
    (1..=5).for_each(|n| _ = step(&mut both, n));
    let mut restored = halves(&spec, 1, &weights);
    for (half, from) in restored.iter_mut().zip(&both) {
        let state = from.state().unwrap();
        let learned = state.iter().flat_map(|s| s.weights.clone()).collect();
        half.adapt(&spec, Some(&lora), &mut LoadedWeights::new(learned)).unwrap();
        for stage in state {
            half.load_optimizer(&stage.stage, &optimizer, stage.optimizer).unwrap();
        }
    }
    for n in 6..=10 {
        assert_eq!(step(&mut restored, n), step(&mut both, n), "step {n}");
    }
}

#[test]
fn a_decoder_is_quantised_and_adapted_at_every_split() {
    // Tied tables, and weights stored [in, out].
    let spec = ModelSpec::Gpt2(Gpt2Spec {
        vocab_size: 50,
        n_positions: 12,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        tied: true,
    });
    let (weights, stages) = (seeded(&spec), spec.stage_count());
    let ids: Vec<i64> = (0..2 * 9).map(|i| i * 7 % 50).collect();
    let inputs = vec![("x".to_string(), HostTensor::from_i64(vec![2, 9], &ids))];
    let labels: Vec<i64> = ids.iter().map(|id| (id + 3) % 50).collect();
    let labels = HostTensor::from_i64(vec![2, 9], &labels);
    for format in [WeightFormat::Int8, WeightFormat::Int4] {
        let part = |range| Segment::build_in(format, &spec, range, &mut loaded(&weights)).unwrap();
        let expected = part(0..stages).infer(&inputs).unwrap();
        for split in 0..=stages {
            let activation = part(0..split).infer(&inputs).unwrap();
            let output = part(split..stages).infer(&activation).unwrap();
            assert_eq!(output, expected, "{format:?}, split at {split}");
        }
    }
    let targets = vec!["c_attn".into(), "c_fc".into()];
    let lora = LoraSpec { rank: 2, targets, ..Default::default() };
    let mut curves = Vec::new();
    for split in 0..=stages {
        let part = |range| {
            let (base, factors) = (&mut loaded(&weights), &mut SeededWeights(lora.seed));
            Segment::build_adapted(&spec, range, base, Some(&lora), factors).unwrap()
        };
        let mut both = [part(0..split), part(split..stages)];
        let step = |_| train_step(&mut both, &inputs, &labels, &adam(0.01));
        let losses: Vec<f32> = (0..20).map(step).collect();
        assert!(losses[19] < losses[0], "{losses:?}");
        let (learned, base) = factors(weights_of(&both));
        assert_eq!(base, weights, "the base is what it was");
        assert_eq!(learned.len(), 2 * 2 * 2, "two layers of two blocks");
        let is_input_major = |name: &str| name.contains(".c_");
        let base = Box::new(loaded(&weights));
        let mut merged = MergedWeights::new(base, learned, lora.scale(), is_input_major);
        let served = Segment::build(&spec, 0..stages, &mut merged, false).unwrap();
        let activation = both[0].infer(&inputs).unwrap();
        // The products of the factors are added up in another order: [in, out] here, [out, in] there.
        let served = served.infer(&inputs).unwrap()[0].1.to_f32().unwrap();
        let adapted = both[1].infer(&activation).unwrap()[0].1.to_f32().unwrap();
        let off = served.iter().zip(&adapted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = adapted.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(off <= 1e-5 * largest, "split at {split}: {off:e} of {largest}");
        curves.push(losses);
    }
    for (split, curve) in curves.iter().enumerate() {
        let worst = curve.iter().zip(&curves[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "split at {split}: {worst}");
    }
}

#[test]
fn split_lora_training_gives_pytorchs_numbers() {
    const STEPS: u64 = 20;
    let python = std::env::var("CLEAVE_TEST_PYTHON").expect("run scripts/test");
    let (digits, spec) = (Digits::open(), mlp());
    let (weights, optimizer) = (seeded(&spec), adam(0.01));
    let lora = LoraSpec { rank: 4, alpha: 8.0, seed: 5, ..Default::default() };
    let mut tensors: HashMap<String, HostTensor> = HashMap::new();
    let mut put = |prefix: &str, all: NamedTensors| {
        tensors.extend(all.into_iter().map(|(name, t)| (format!("{prefix}/{name}"), t)));
    };
    put("weights", weights.clone());
    let batches: Vec<Batch> = (1..=STEPS).map(|n| digits.batch(n)).collect();
    for split in 0..=spec.stage_count() {
        let mut both = adapted(&spec, split, &weights, &lora);
        put("first", factors(weights_of(&both)).0);
        let step = |b: &Batch| train_step(&mut both, &b.inputs, &b.labels, &optimizer);
        let losses: Vec<f32> = batches.iter().map(step).collect();
        let losses = HostTensor::from_f32(vec![STEPS as usize], &losses);
        put(&format!("split{split}"), vec![("losses".into(), losses)]);
        put(&format!("split{split}"), factors(weights_of(&both)).0);
    }
    let inputs: Vec<f32> = batches.iter().flat_map(|b| b.inputs[0].1.to_f32().unwrap()).collect();
    let labels: Vec<i64> = batches.iter().flat_map(|b| b.labels.to_i64().unwrap()).collect();
    let steps = STEPS as usize;
    let inputs = HostTensor::from_f32(vec![steps, BATCH, 64], &inputs);
    let labels = HostTensor::from_i64(vec![steps, BATCH], &labels);
    tensors.extend([("inputs".to_string(), inputs), ("labels".to_string(), labels)]);

    let dir = tempfile::tempdir().unwrap();
    let case = serde_json::json!({ "lora": lora, "learning_rate": 0.01 });
    fs::write(dir.path().join("case.json"), case.to_string()).unwrap();
    let views = tensors.iter().map(|(name, tensor)| {
        let dtype = if tensor.dtype() == DType::I64 { Dtype::I64 } else { Dtype::F32 };
        (name, TensorView::new(dtype, tensor.shape().to_vec(), tensor.data()).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(dir.path().join("case.safetensors"), bytes).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/lora_reference.py");
    let output = Command::new(python).arg(script).arg(dir.path()).output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), spec.stage_count() + 1, "{text}");
}
