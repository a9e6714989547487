//! GPT-2 and Llama against transformers: logits, training, and 64 tokens of greedy generation.

use std::sync::Arc;

use cleave_shared::{
    generate::{Choice, Sampler, Sequence, Tail},
    model::{
        Gpt2Spec, LlamaSpec, LossKind, ModelSpec, OptimizerSpec, RopeScaling, SegmentCache,
        WeightFile,
    },
    tensor::HostTensor,
    wire::NamedTensors,
};
use serde_json::json;

use crate::{
    reference::{Reference, assert_close, at, difference},
    splits::{STEPS, SplitTraining, adam, infer, segment, sgd, shipped},
};

const SCRIPT: &str = "lm_reference.py";
const POSITIONS: usize = 96;
const PROMPT: usize = 7;
const TOKENS: usize = 64;

/// Logits, in inference.
const INFERENCE: f64 = 1e-4;
/// Losses and weights of the training.
const TRAINING: f64 = 1e-3;
/// A step with a cache against a pass over the whole sequence: other sums of the same products.
const CACHED: f64 = 1e-5;

pub fn gpt2(tied: bool) -> ModelSpec {
    ModelSpec::Gpt2(Gpt2Spec {
        vocab_size: 61,
        n_positions: POSITIONS,
        n_embd: 32,
        n_layer: 3,
        n_head: 4,
        layer_norm_epsilon: 1e-5,
        tied,
    })
}

/// Two query heads share a key; heads are wider than their share of the hidden states.
pub fn llama(tied: bool) -> ModelSpec {
    ModelSpec::Llama(LlamaSpec {
        vocab_size: 61,
        hidden_size: 32,
        intermediate_size: 56,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: Some(12),
        max_position_embeddings: POSITIONS,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tied,
    })
}

/// Rotations that are left, blended and slowed down: waves of 6, 14, 29, 63, 135 and 292 positions.
fn stretched_llama() -> ModelSpec {
    let ModelSpec::Llama(sizes) = llama(true) else { unreachable!() };
    let scaling = RopeScaling {
        factor: 4.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    };
    ModelSpec::Llama(LlamaSpec { rope_theta: 100.0, rope_scaling: Some(scaling), ..sizes })
}

/// The reference of a spec, with batches to train on; one that can be trained is.
pub fn reference(spec: &ModelSpec) -> Reference {
    assert_eq!(spec.check(), Ok(()));
    let mut case = json!({
        "model": spec, "batch": 3, "sequence": 11, "prompt": PROMPT, "tokens": TOKENS,
        "steps": STEPS,
    });
    if spec.check_training().is_ok() {
        case["optimizers"] = json!({ "sgd": sgd(0.01), "adam": adam(0.001) });
    }
    Reference::make(SCRIPT, &case)
}

fn named(tensor: &HostTensor) -> NamedTensors {
    vec![("x".into(), tensor.clone())]
}

fn ids(ids: &[i64]) -> NamedTensors {
    named(&HostTensor::from_i64(vec![1, ids.len()], ids))
}

fn is_transformers(spec: ModelSpec) {
    let reference = reference(&spec);
    let file = reference.weights();
    let flops: u64 = spec.stages().iter().map(|s| s.flops).sum();
    assert_eq!(reference.facts["flops"], flops, "as PyTorch counts them");

    let input = named(reference.tensor("input"));
    let count = spec.stage_count();
    let whole = segment(&spec, &file, 0..count, false).infer(&input).unwrap();
    let worst = assert_close("logits", &whole[0].1, reference.tensor("logits"), INFERENCE);
    println!("{}: logits {worst:.1e}", spec.family_name());
    for split in 0..=count {
        assert_eq!(infer(&spec, &file, split, &input), whole, "bit for bit, split at {split}");
    }
    // As saved from the class without a head: other names, and no head.
    let bare = reference.weights_path().with_file_name("bare").join("model.safetensors");
    let bare = Arc::new(WeightFile::open(&bare).unwrap());
    let blocks = segment(&spec, &bare, 0..count - 1, false).infer(&input).unwrap();
    let head = segment(&spec, &file, count - 1..count, false);
    assert_eq!(head.infer(&blocks).unwrap(), whole);

    let expected = reference.tensor("generated").to_i64().unwrap();
    for split in 0..=count {
        let (found, _) = continued(&spec, &file, split, Sampler::GREEDY, &expected[..PROMPT]);
        let found: Vec<i64> = found.iter().map(|c| c.id as i64).collect();
        assert_eq!(found, expected[PROMPT..], "greedy, split at {split}");
    }
    samples_alike(&spec, &file, &expected[..PROMPT]);
    a_cached_step_is_a_full_pass(&spec, &file, &expected);
}

/// What follows the prompt when the model is cut at `split`, and the positions that were shipped.
fn continued(
    spec: &ModelSpec,
    file: &Arc<WeightFile>,
    split: usize,
    sampler: Sampler,
    prompt: &[i64],
) -> (Vec<Choice>, Vec<usize>) {
    let count = spec.stage_count();
    let most = prompt.len() + TOKENS - 1;
    let part = |range| Sequence::new(Arc::new(segment(spec, file, range, false)), most);
    let (mut head, mut tail) = (part(0..split), Tail::new(part(split..count), sampler));
    let (mut next, mut choices, mut positions) = (prompt.to_vec(), Vec::new(), Vec::new());
    while choices.len() < TOKENS {
        let crossing = shipped(head.extend(&ids(&next)).unwrap());
        positions.push(crossing[0].1.shape()[1]);
        let choice = tail.next(&crossing).unwrap();
        choices.push(choice);
        next = vec![choice.id as i64];
    }
    let taken = [head.cache_bytes(), tail.cache_bytes()];
    let planned = [spec.cache_bytes(0..split, most), spec.cache_bytes(split..count, most)];
    assert_eq!(taken, planned, "caches are as large as was said");
    (choices, positions)
}

/// A seed gives the same tokens wherever the cut is, and each token ships one position.
fn samples_alike(spec: &ModelSpec, file: &Arc<WeightFile>, prompt: &[i64]) {
    let sampler = Sampler { temperature: 1.2, top_k: 25, top_p: 0.95, seed: 3 };
    let (expected, positions) = continued(spec, file, 0, sampler, prompt);
    assert_eq!(positions[0], PROMPT);
    assert!(positions[1..].iter().all(|&p| p == 1));
    for split in 1..=spec.stage_count() {
        assert_eq!(continued(spec, file, split, sampler, prompt).0, expected, "split at {split}");
    }
    let other = Sampler { seed: 4, ..sampler };
    assert_ne!(continued(spec, file, 0, other, prompt).0, expected);
    assert_ne!(continued(spec, file, 0, Sampler::GREEDY, prompt).0, expected);
}

/// Logits of each position, computed one by one and two at a time, are those of one pass over all.
fn a_cached_step_is_a_full_pass(spec: &ModelSpec, file: &Arc<WeightFile>, sequence: &[i64]) {
    let whole = segment(spec, file, 0..spec.stage_count(), false);
    let full = whole.infer(&ids(sequence)).unwrap().remove(0).1;
    let vocabulary = full.shape()[2];
    let full = full.to_f32().unwrap();
    for stride in [1, 2] {
        let mut cache = SegmentCache::default();
        let mut done = 0;
        for new in sequence.chunks(stride) {
            done += new.len();
            let step = whole.infer_next(&ids(new), &mut cache).unwrap().remove(0).1;
            assert_eq!(step.shape(), [1, 1, vocabulary], "of the last position only");
            let expected = &full[(done - 1) * vocabulary..done * vocabulary];
            let worst = difference(&step.to_f32().unwrap(), expected);
            assert!(worst <= CACHED, "position {done}: {worst:.1e}");
        }
    }
}

fn trains_as_in_transformers(spec: ModelSpec) {
    let reference = reference(&spec);
    let count = spec.stage_count();
    for split in [0, 1, 2, count - 1] {
        for (name, optimizer) in [("sgd", sgd(0.01)), ("adam", adam(0.001))] {
            trains_alike(&spec, &reference, split, name, optimizer);
        }
    }
}

fn trains_alike(
    spec: &ModelSpec,
    reference: &Reference,
    split: usize,
    name: &str,
    optimizer: OptimizerSpec,
) {
    let (file, loss) = (reference.weights(), LossKind::CrossEntropy);
    let mut training = SplitTraining::new(spec, &file, split, loss, optimizer);
    let what = format!("{} split at {split}, {name}", spec.family_name());
    let inputs = |i| named(&at(reference.tensor("step_inputs"), i));
    let worst_loss = training.losses_are_alike(&what, reference, name, inputs, TRAINING);
    let prefix = format!("{name}/final/");
    let expected = reference.group(&prefix);
    let weights = training.weights();
    assert_eq!(weights.len(), expected.len(), "every parameter");
    let mut worst = 0.0f64;
    for (parameter, tensor) in &weights {
        let what = format!("{what}: {parameter}");
        let [found, expected] =
            [tensor, expected[parameter.as_str()]].map(|t| learnt(parameter, t));
        worst = worst.max(assert_close(&what, &found, &expected, TRAINING));
    }
    println!("{what}: losses {worst_loss:.1e}, weights {worst:.1e}");
}

/// A parameter without those of its values that no loss depends on: a bias of all keys shifts every score
/// of a query alike, which the softmax takes out again. Their gradients are rounding errors, which Adam
/// scales up to full steps.
fn learnt(name: &str, tensor: &HostTensor) -> HostTensor {
    if !name.ends_with("attn.c_attn.bias") {
        return tensor.clone();
    }
    let values = tensor.to_f32().unwrap();
    let third = values.len() / 3;
    let kept = [&values[..third], &values[2 * third..]].concat();
    HostTensor::from_f32(vec![kept.len()], &kept)
}

#[test]
fn gpt2_with_a_tied_head_is_transformers() {
    is_transformers(gpt2(true));
}

#[test]
fn gpt2_with_its_own_head_is_transformers() {
    is_transformers(gpt2(false));
    trains_as_in_transformers(gpt2(false));
}

#[test]
fn llama_with_its_own_head_is_transformers() {
    is_transformers(llama(false));
    trains_as_in_transformers(llama(false));
}

#[test]
fn llama_with_a_tied_head_and_stretched_positions_is_transformers() {
    is_transformers(stretched_llama());
}

#[test]
fn a_tied_model_is_trained_once_it_is_untied() {
    let tied = gpt2(true);
    let reference = reference(&tied);
    let file = reference.weights();
    let mut source = file.source(tied.prefixes());
    let error = cleave_shared::model::Segment::build(&tied, 0..1, &mut source, true);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("set model.tied = false to train"), "{error}");

    // The same file: the head starts as a copy of the embedding, and is a parameter of its own.
    let untied = gpt2(false);
    let input = named(reference.tensor("input"));
    let count = untied.stage_count();
    let logits = infer(&untied, &file, 2, &input);
    assert_eq!(logits, infer(&tied, &file, 2, &input));
    let tail = segment(&untied, &file, 2..count, true);
    let names: Vec<String> = tail.weights().into_iter().map(|(n, _)| n).collect();
    assert!(names.contains(&"lm_head.weight".into()) && !names.contains(&"wte.weight".into()));
}

#[test]
fn what_no_embedding_has_and_what_is_too_long_is_refused() {
    for spec in [gpt2(true), llama(true)] {
        let mut weights = cleave_shared::model::SeededWeights(1);
        let count = spec.stage_count();
        let whole = cleave_shared::model::Segment::build(&spec, 0..count, &mut weights, false);
        let whole = Arc::new(whole.unwrap());
        let refused = |input: NamedTensors| whole.infer(&input).unwrap_err().to_string();
        assert!(refused(ids(&[3, 61])).contains("expected token ids below 61, found 61"));
        assert!(refused(ids(&[-1])).contains("found -1"));
        assert!(refused(ids(&[0; 97])).contains("expected 1 to 96 more positions, found 97"));
        let floats = named(&HostTensor::from_f32(vec![1, 2], &[0.0; 2]));
        assert!(refused(floats).contains("token ids: INT64 [batch, sequence]"));
        assert!(refused(ids(&[])).contains("neither of them 0"));

        let mut sequence = Sequence::new(whole.clone(), 4);
        sequence.extend(&ids(&[1, 2, 3])).unwrap();
        let error = sequence.extend(&ids(&[1, 2])).unwrap_err().to_string();
        assert!(error.contains("1 to 1 more positions"), "{error}");
        let two = named(&HostTensor::from_i64(vec![2, 1], &[1, 2]));
        let error = sequence.extend(&two).unwrap_err().to_string();
        assert!(error.contains("one sequence"), "{error}");
        // Without a session's limit, the model's own holds, and a batch stays what it was.
        let mut cache = SegmentCache::default();
        whole.infer_next(&ids(&[1; 90]), &mut cache).unwrap();
        let error = whole.infer_next(&ids(&[1; 7]), &mut cache).unwrap_err().to_string();
        assert!(error.contains("expected 1 to 6 more positions, found 7"), "{error}");
        let mut cache = SegmentCache::default();
        whole.infer_next(&ids(&[1; 3]), &mut cache).unwrap();
        let error = whole.infer_next(&two, &mut cache).unwrap_err().to_string();
        assert!(error.contains("the batch that the sequence began with"), "{error}");
    }
}
