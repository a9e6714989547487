use super::*;
use crate::{
    model::{
        LoadedWeights, LossKind, ModelSpec, OptimizerSpec, SeededWeights, Segment, SegmentCache,
    },
    tensor::HostTensor,
    wire::NamedTensors,
};

fn spec(cell: Cell, task: SequenceTask) -> RnnSpec {
    let classes = (task == SequenceTask::Classify).then_some(3);
    RnnSpec {
        cell,
        task,
        vocabulary: Some(11),
        embedding: Some(5),
        features: None,
        hidden: 6,
        layers: 2,
        classes,
        longest: 7,
    }
}

fn all_specs() -> Vec<RnnSpec> {
    let tasks = [SequenceTask::Classify, SequenceTask::LanguageModel];
    let tasks = tasks.into_iter().flat_map(|t| [Cell::Lstm, Cell::Gru].map(|c| spec(c, t)));
    let vectors =
        |s: &RnnSpec| RnnSpec { vocabulary: None, embedding: None, features: Some(4), ..s.clone() };
    let tokens: Vec<_> = tasks.collect();
    let classify = tokens.iter().filter(|s| s.task == SequenceTask::Classify);
    classify.map(vectors).chain(tokens.iter().cloned()).collect()
}

fn whole(spec: &RnnSpec) -> Segment {
    let spec = ModelSpec::Rnn(spec.clone());
    Segment::build(&spec, 0..spec.stage_count(), &mut SeededWeights(5), false).unwrap()
}

/// Ids `[batch, sequence]`, all different from one place to the next.
fn ids(batch: usize, sequence: usize) -> HostTensor {
    let values: Vec<i64> = (0..batch * sequence).map(|i| (i * 7 % 11) as i64).collect();
    HostTensor::from_i64(vec![batch, sequence], &values)
}

fn columns(ids: &HostTensor, range: std::ops::Range<usize>) -> HostTensor {
    let (values, [batch, sequence]) = (ids.to_i64().unwrap(), [ids.shape()[0], ids.shape()[1]]);
    let rows = values.chunks(sequence).flat_map(|row| row[range.clone()].to_vec());
    HostTensor::from_i64(vec![batch, range.len()], &rows.collect::<Vec<_>>())
}

fn named(tensors: &[(&str, HostTensor)]) -> NamedTensors {
    tensors.iter().map(|(n, t)| (n.to_string(), t.clone())).collect()
}

fn lengths(values: &[i64]) -> HostTensor {
    HostTensor::from_i64(vec![values.len()], values)
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(worst < 1e-6, "{worst:e}: {found:?} {expected:?}");
}

#[test]
fn ports_are_what_the_stages_give() {
    for spec in all_specs() {
        assert_eq!(spec.check(), Ok(()));
        let (batch, longest) = (2, spec.longest);
        let first = match spec.features {
            Some(n) => {
                HostTensor::from_f32(vec![batch, longest, n], &vec![0.5; batch * longest * n])
            }
            None => ids(batch, longest),
        };
        let mut tensors = named(&[(&spec.inputs()[0].name, first)]);
        if spec.task == SequenceTask::Classify {
            tensors.push((LENGTH.into(), lengths(&[3, 7])));
        }
        let model = ModelSpec::Rnn(spec.clone());
        for (i, plan) in model.stages().iter().enumerate() {
            let stage = Segment::build(&model, i..i + 1, &mut SeededWeights(1), false).unwrap();
            tensors = stage.infer(&tensors).unwrap();
            let given = tensors.iter().map(|(n, t)| (n.clone(), t.dtype(), t.shape().to_vec()));
            let said = plan.outputs.iter().map(|p| {
                let shape = [vec![batch], p.largest()].concat();
                (p.name.clone(), p.dtype, shape)
            });
            assert_eq!(given.collect::<Vec<_>>(), said.collect::<Vec<_>>(), "{}", plan.name);
        }
        assert_eq!(tensors[0].1.shape()[1..], spec.outputs()[0].largest());
    }
}

#[test]
fn flops_are_those_of_the_products() {
    let spec = spec(Cell::Gru, SequenceTask::LanguageModel);
    let flops: Vec<u64> = spec.stages().iter().map(|p| p.flops).collect();
    // 7 positions, 3 gates of 6 units from 5 or 6 inputs and 6 hidden; then 11 logits.
    let layer = |input: u64| 7 * 2 * 3 * 6 * (input + 6);
    assert_eq!(flops, [0, layer(5), layer(6), 7 * 2 * 6 * 11]);
}

#[test]
fn a_sequence_in_pieces_is_the_sequence() {
    for cell in [Cell::Lstm, Cell::Gru] {
        let model = whole(&spec(cell, SequenceTask::LanguageModel));
        let tokens = ids(2, 7);
        let all = model.infer(&named(&[("x", tokens.clone())])).unwrap().remove(0).1;
        let all = all.to_f32().unwrap();
        let mut cache = SegmentCache::default();
        for range in [0..3, 3..4, 4..5, 5..7] {
            let piece = named(&[("x", columns(&tokens, range.clone()))]);
            let logits = model.infer_next(&piece, &mut cache).unwrap().remove(0).1;
            assert_eq!(logits.shape(), [2, range.len(), 11]);
            let expected = all.chunks(7 * 11).flat_map(|s| &s[range.start * 11..range.end * 11]);
            assert_close(&logits.to_f32().unwrap(), &expected.copied().collect::<Vec<_>>());
        }
    }
}

#[test]
fn padding_changes_nothing_and_a_padded_sequence_goes_on_from_its_end() {
    for cell in [Cell::Lstm, Cell::Gru] {
        let model = whole(&spec(cell, SequenceTask::Classify));
        let tokens = ids(2, 7);
        let logits = |t: &[(&str, HostTensor)]| {
            model.infer(&named(t)).unwrap().remove(0).1.to_f32().unwrap()
        };
        let padded = logits(&[(TOKENS, tokens.clone()), (LENGTH, lengths(&[7, 4]))]);
        let long = logits(&[(TOKENS, tokens.clone())]);
        let short = logits(&[(TOKENS, columns(&tokens, 0..4))]);
        assert_close(&padded[..3], &long[..3]);
        assert_close(&padded[3..], &short[3..]);
        assert!((padded[3] - long[3]).abs() > 1e-4, "the padding would have mattered");
        let mask = HostTensor::from_i64(vec![2, 7], &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]);
        assert_eq!(logits(&[(TOKENS, tokens.clone()), (MASK, mask)]), padded);

        // Of the first four positions the second sample has three; then both have three more.
        let mut cache = SegmentCache::default();
        let next = |cache: &mut _, t: &[(&str, HostTensor)]| {
            model.infer_next(&named(t), cache).unwrap().remove(0).1.to_f32().unwrap()
        };
        let begin = columns(&tokens, 0..4);
        next(&mut cache, &[(TOKENS, begin), (LENGTH, lengths(&[4, 3]))]);
        let values = tokens.to_i64().unwrap();
        let rest = [&values[4..7], &values[7 + 3..7 + 6]].concat();
        let rest = HostTensor::from_i64(vec![2, 3], &rest);
        let continued = next(&mut cache, &[(TOKENS, rest)]);
        assert_close(&continued[..3], &long[..3]);
        assert_close(&continued[3..], &logits(&[(TOKENS, columns(&tokens, 0..6))])[3..]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = whole(&spec(Cell::Lstm, SequenceTask::Classify));
    let error =
        |tensors: &[(&str, HostTensor)]| model.infer(&named(tensors)).unwrap_err().to_string();
    let mask = |values: &[i64]| (MASK, HostTensor::from_i64(vec![1, 3], values));
    let bad_id = HostTensor::from_i64(vec![1, 2], &[3, 11]);
    let cases = [
        (error(&[(TOKENS, bad_id)]), "stage embedding: expected token ids in 0..11, found 11"),
        (error(&[(TOKENS, ids(1, 8))]), "of 1 to 7 positions, found 1 of 8"),
        (error(&[(TOKENS, HostTensor::from_i64(vec![1, 0], &[]))]), "found 1 of 0"),
        (error(&[(TOKENS, ids(2, 3)), (LENGTH, lengths(&[3]))]), "length of INT64 [2], found"),
        (error(&[(TOKENS, ids(2, 3)), (LENGTH, lengths(&[3, 4]))]), "length in 1..=3, found 4"),
        (error(&[(TOKENS, ids(2, 3)), (LENGTH, lengths(&[0, 3]))]), "length in 1..=3, found 0"),
        (error(&[(TOKENS, ids(1, 3)), mask(&[0, 1, 1])]), "ones, then zeros behind them"),
        (error(&[(TOKENS, ids(1, 3)), mask(&[0, 0, 0])]), "something else for sample 0"),
        (error(&[(TOKENS, ids(1, 3)), mask(&[2, 1, 0])]), "ones, then zeros behind them"),
        (error(&[(TOKENS, ids(1, 3)), mask(&[1, 0, -1])]), "ones, then zeros behind them"),
        (error(&[(TOKENS, ids(2, 3)), mask(&[1, 1, 0])]), "attention_mask of INT64 [2, 3]"),
        (
            error(&[(TOKENS, ids(1, 3)), (LENGTH, lengths(&[3])), mask(&[1, 1, 0])]),
            "expected length or attention_mask, found both",
        ),
        (error(&[(LENGTH, lengths(&[1]))]), r#"expected a tensor named "input_ids""#),
        (error(&[("x", HostTensor::from_f32(vec![1, 1], &[0.0]))]), "FP32 of shape [1, 1]"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found:?} lacks {expected:?}");
    }
    let mut cache = SegmentCache::default();
    model.infer_next(&named(&[(TOKENS, ids(2, 3))]), &mut cache).unwrap();
    let error = model.infer_next(&named(&[(TOKENS, ids(1, 3))]), &mut cache).unwrap_err();
    assert!(error.to_string().contains("the 2 sequences that were begun"), "{error}");
}

#[test]
fn a_spec_that_makes_no_sense_is_refused() {
    let good = spec(Cell::Lstm, SequenceTask::Classify);
    type Change<'a> = &'a dyn Fn(&mut RnnSpec);
    let change = |f: Change<'_>| {
        let mut spec = good.clone();
        f(&mut spec);
        spec.check().unwrap_err()
    };
    let cases: [(Change<'_>, &str); 7] = [
        (&|s| s.features = Some(3), "give vocabulary and embedding, or features"),
        (&|s| s.embedding = None, "give vocabulary and embedding, or features"),
        (&|s| s.classes = None, "task classify needs classes"),
        (&|s| s.task = SequenceTask::LanguageModel, "task language-model needs vocabulary"),
        (&|s| s.hidden = 0, "size 0 is out of range"),
        (&|s| s.longest = 1 << 21, "size 2097152 is out of range"),
        (&|s| s.layers = 0, "layers = 0 is out of range"),
    ];
    for (f, expected) in cases {
        let found = change(f);
        assert!(found.contains(expected), "{found:?} lacks {expected:?}");
    }
}

#[test]
fn a_spec_is_written_as_the_configuration_has_it() {
    let text = r#"
        family = "rnn"
        cell = "lstm"
        task = "language-model"
        vocabulary = 11
        embedding = 5
        hidden = 6
        layers = 2
        longest = 7
    "#;
    let read: ModelSpec = toml::from_str(text).unwrap();
    assert_eq!(read, ModelSpec::Rnn(spec(Cell::Lstm, SequenceTask::LanguageModel)));
    assert_eq!(serde_json::from_str::<ModelSpec>(&read.canonical()).unwrap(), read);
    let names = ["embedding", "layer0", "layer1", "decoder"];
    assert_eq!(read.stage_names(), names);
    let error = toml::from_str::<ModelSpec>(&text.replace("layers", "layer")).unwrap_err();
    assert!(error.to_string().contains("unknown field `layer`"), "{error}");
}

#[test]
fn a_restored_network_goes_on_bit_for_bit() {
    let adam = OptimizerSpec::Adam {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    for cell in [Cell::Lstm, Cell::Gru] {
        let spec = ModelSpec::Rnn(spec(cell, SequenceTask::Classify));
        let stages = 0..spec.stage_count();
        let (input, labels) = (named(&[(TOKENS, ids(3, 7))]), lengths(&[0, 1, 2]));
        let step = |segment: &mut Segment| {
            let loss = LossKind::CrossEntropy;
            segment.tail_step(&input, &labels, loss, &adam, false).unwrap().loss.to_bits()
        };
        let mut model = Segment::build(&spec, stages.clone(), &mut SeededWeights(5), true).unwrap();
        let first = step(&mut model);
        step(&mut model);
        let state = model.state().unwrap();
        let weights = state.iter().flat_map(|s| s.weights.clone()).collect();
        let mut restored =
            Segment::build(&spec, stages, &mut LoadedWeights::new(weights), true).unwrap();
        for stage in state {
            restored.load_optimizer(&stage.stage, &adam, stage.optimizer).unwrap();
        }
        for _ in 0..3 {
            let loss = step(&mut restored);
            assert_eq!(loss, step(&mut model));
            assert_ne!(loss, first, "it learns");
        }
        assert_eq!(restored.weights(), model.weights());
    }
}
