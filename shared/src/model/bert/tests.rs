use crate::{
    model::{BertAct, BertHead, BertSpec, ModelError, ModelSpec, SeededWeights, Segment},
    tensor::HostTensor,
    wire::NamedTensors,
};

fn spec(head: BertHead) -> BertSpec {
    BertSpec {
        vocab_size: 50,
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: 7,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_act: BertAct::Gelu,
        head,
        classes: (head == BertHead::Classify).then_some(4),
    }
}

fn segment(head: BertHead, range: std::ops::Range<usize>) -> Segment {
    let model = ModelSpec::Bert(spec(head));
    Segment::build(&model, range, &mut SeededWeights(1), false).unwrap()
}

fn integers(name: &str, rows: &[&[i64]]) -> (String, HostTensor) {
    let shape = vec![rows.len(), rows[0].len()];
    (name.into(), HostTensor::from_i64(shape, &rows.concat()))
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn padding_changes_nothing() {
    for head in [BertHead::Classify, BertHead::Embed] {
        let stages = ModelSpec::Bert(spec(head)).stage_count();
        let model = segment(head, 0..stages);
        let infer =
            |input: NamedTensors| model.infer(&input).unwrap().remove(0).1.to_f32().unwrap();
        let alone = infer(vec![integers("input_ids", &[&[3, 9, 4]])]);
        let rows: [&[i64]; 2] = [&[3, 9, 4, 0, 0], &[8, 2, 7, 6, 5]];
        let mask: [&[i64]; 2] = [&[1, 1, 1, 0, 0], &[1; 5]];
        let both = infer(vec![integers("input_ids", &rows), integers("attention_mask", &mask)]);
        assert!(close(&both[..alone.len()], &alone), "{head:?}");
        let unmasked = infer(vec![integers("input_ids", &rows)]);
        assert!(!close(&unmasked[..alone.len()], &alone), "without the mask padding is read");
    }
}

#[test]
fn an_embedding_has_length_1() {
    let model = segment(BertHead::Embed, 0..4);
    let output = model.infer(&vec![integers("input_ids", &[&[3, 9], &[1, 1]])]).unwrap();
    assert_eq!(output[0].1.shape(), [2, 12]);
    for row in output[0].1.to_f32().unwrap().chunks(12) {
        assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    // A row that is all padding is no number to divide by, and stays finite.
    let mask = integers("attention_mask", &[&[0, 0], &[1, 1]]);
    let output = model.infer(&vec![integers("input_ids", &[&[3, 9], &[1, 1]]), mask]).unwrap();
    assert!(output[0].1.to_f32().unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn a_mask_ends_where_the_sequence_does() {
    let names = |head, range| {
        let output = segment(head, range).infer(&vec![integers("input_ids", &[&[1, 2]])]).unwrap();
        output.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(BertHead::Classify, 0..1), ["x", "attention_mask"]);
    assert_eq!(names(BertHead::Classify, 0..3), ["x", "attention_mask"]);
    assert_eq!(names(BertHead::Classify, 0..4), ["x"], "the pooler");
    assert_eq!(names(BertHead::Encode, 0..3), ["x"]);
}

#[test]
fn input_that_no_table_has_is_refused() {
    let model = segment(BertHead::Encode, 0..3);
    let ids = || integers("input_ids", &[&[3, 9, 4]]);
    let cases = [
        (vec![], "a tensor named \"input_ids\""),
        (vec![integers("input_ids", &[&[3, 50]])], "input_ids: INT64 [batch, sequence] below 50"),
        (vec![integers("input_ids", &[&[3, -1]])], "found -1"),
        (vec![integers("input_ids", &[&[3, 1 << 40]])], "found 1099511627776"),
        (vec![integers("input_ids", &[&[1; 8]])], "sequence 1 to 7, found shape [1, 8]"),
        (vec![ids(), integers("attention_mask", &[&[1, 1]])], "attention_mask: INT64"),
        (vec![ids(), integers("attention_mask", &[&[1, 1, 2]])], "found 2"),
        (vec![ids(), integers("token_type_ids", &[&[0, 0, 2]])], "token_type_ids: INT64"),
        (vec![ids(), integers("words", &[&[0, 0, 2]])], "found [\"words\"] too"),
        (vec![("input_ids".into(), HostTensor::from_f32(vec![1, 2], &[1.0, 2.0]))], "INT64"),
        (vec![("input_ids".into(), HostTensor::from_i64(vec![1, 0], &[]))], "shape [1, 0]"),
    ];
    for (input, why) in cases {
        let error = model.infer(&input).unwrap_err();
        assert!(matches!(error, ModelError::Input { .. }));
        let error = error.to_string();
        assert!(error.starts_with("stage embeddings: ") && error.contains(why), "{error}");
    }
    // Behind a cut: a peer that forgets the mask, or sends one of another shape.
    let tail = segment(BertHead::Encode, 1..3);
    let x = ("x".to_string(), HostTensor::from_f32(vec![1, 2, 12], &[0.5; 24]));
    let error = tail.infer(&vec![x.clone()]).unwrap_err().to_string();
    assert!(error.contains("a tensor named \"attention_mask\""), "{error}");
    let error = tail.infer(&vec![x, integers("attention_mask", &[&[1]])]).unwrap_err().to_string();
    assert!(error.contains("stage layer-0") && error.contains("shape [1, 1]"), "{error}");
}

#[test]
fn sizes_that_cannot_be_built_are_refused() {
    let refused = |change: &dyn Fn(&mut BertSpec)| {
        let mut spec = spec(BertHead::Classify);
        change(&mut spec);
        ModelSpec::Bert(spec).check().unwrap_err()
    };
    assert!(refused(&|s| s.num_attention_heads = 5).contains("12 must be divisible"));
    assert!(refused(&|s| s.num_attention_heads = 0).contains("size 0 is out of range"));
    assert!(refused(&|s| s.num_hidden_layers = 0).contains("num_hidden_layers 0"));
    assert!(refused(&|s| s.classes = None).contains("needs classes"));
    assert!(refused(&|s| s.head = BertHead::Embed).contains("classify only"));
    assert!(refused(&|s| s.layer_norm_eps = f64::NAN).contains("layer_norm_eps NaN"));
}

/// What sentence-transformers/all-MiniLM-L6-v2 is, as a configuration file says it.
#[test]
fn minilm_can_be_written_down() {
    let text = "family = \"bert\"\nvocab_size = 30522\nhidden_size = 384\nnum_hidden_layers = 6\n\
                num_attention_heads = 12\nintermediate_size = 1536\nmax_position_embeddings = 512\n\
                head = \"embed\"\n";
    let spec: ModelSpec = toml::from_str(text).unwrap();
    spec.check().unwrap();
    assert_eq!(spec.stage_count(), 8);
    let outputs = spec.outputs();
    assert_eq!((outputs[0].name.as_str(), outputs[0].largest()), ("sentence_embedding", vec![384]));
    let error = toml::from_str::<ModelSpec>(&format!("{text}dropout = 0.1\n")).unwrap_err();
    assert!(error.to_string().contains("unknown field `dropout`"), "{error}");
}
