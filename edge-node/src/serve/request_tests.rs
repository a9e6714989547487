//! Tests of the request rules; in a file of their own to keep `request.rs` readable.

use bytes::Bytes;
use cleave_shared::tensor::HostTensor;
use proptest::prelude::*;

use super::*;
use crate::serve::fake;

fn run(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: Contents<'_>,
) -> Result<HostTensor, String> {
    match validate(&fake::info(), vec![(Stated { name, datatype, shape }, contents)]) {
        Ok(Query::Tensors(mut inputs)) => Ok(inputs.remove(0).1),
        Ok(texts) => panic!("{texts:?}"),
        Err(InferError::BadInput(text)) => Err(text),
        Err(other) => panic!("{other:?}"),
    }
}

/// INT64 inputs of the model that takes token ids.
fn tokens<'a>(sent: &[(&'a str, &'a [i64], &[i64])]) -> Result<Query, String> {
    let input = |&(name, shape, values): &(&'a str, &'a [i64], &[i64])| {
        (Stated { name, datatype: "INT64", shape }, Contents::Integers(values.to_vec()))
    };
    validate(&fake::tokens(), sent.iter().map(input).collect()).map_err(|e| e.to_string())
}

fn values(values: &[f32]) -> Contents<'static> {
    Contents::Floats(values.to_vec())
}

#[test]
fn a_valid_request_becomes_the_tensor() {
    let wanted = HostTensor::from_f32(vec![1, 2, 3], &[1., 2., 3., 4., 5., 6.]);
    let six = [1., 2., 3., 4., 5., 6.];
    assert_eq!(run("input", "FP32", &[1, 2, 3], values(&six)).unwrap(), wanted);
    let raw = Contents::Raw(wanted.data().clone());
    let found = run("input", "FP32", &[1, 2, 3], raw).unwrap();
    assert_eq!(found, wanted);
    assert_eq!(found.data().as_ptr(), wanted.data().as_ptr(), "raw contents are not copied");
    let json = RawValue::from_string("[[[1,2,3],[4,5,6]]]".into()).unwrap();
    assert_eq!(run("input", "FP32", &[1, 2, 3], Contents::Json(&json)).unwrap(), wanted);
}

#[test]
fn names_and_datatypes_are_refused_by_name() {
    let error = run("imput", "FP32", &[1, 2, 3], values(&[0.; 6])).unwrap_err();
    assert_eq!(error, r#"model "toy" has no input "imput"; its input is "input""#);
    let error = run("input", "INT8", &[1, 2, 3], values(&[0.; 6])).unwrap_err();
    assert_eq!(error, r#"input "input" has datatype "INT8"; send FP32"#);
}

#[test]
fn shapes_are_refused_with_the_reason() {
    let cases: [(&[i64], &str); 7] = [
        (&[], "shape []: it has rank 0, not 3"),
        (&[2, 3], "shape [2, 3]: it has rank 2, not 3"),
        (&[1; 12], "shape [1, 1, 1, 1, 1, 1, 1, 1] and 4 more: it has rank 12"),
        (&[1, 2, -3], "dimension 2 is -3, not 3"),
        (&[0, 2, 3], "the batch is 0; send [batch, 2, 3] with batch 1 to 4"),
        (&[5, 2, 3], "the batch is 5"),
        (&[i64::MIN, 2, 3], "the batch is -9223372036854775808"),
    ];
    for (shape, why) in cases {
        let error = run("input", "FP32", shape, values(&[0.; 6])).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn contents_of_the_wrong_size_are_refused() {
    let error = run("input", "FP32", &[1, 2, 3], values(&[0.; 5])).unwrap_err();
    assert_eq!(error, r#"input "input" has 5 values, shape [1, 2, 3] needs 6"#);
    for (length, what) in [(23, "truncated"), (25, "too long"), (0, "truncated")] {
        let raw = Contents::Raw(vec![0; length].into());
        let error = run("input", "FP32", &[1, 2, 3], raw).unwrap_err();
        assert!(error.contains(what) && error.ends_with("needs 24"), "{error}");
    }
}

#[test]
fn the_first_value_that_is_not_finite_is_named() {
    let mut data = [0.0; 12];
    data[10] = f32::NAN;
    data[11] = f32::INFINITY;
    let error = run("input", "FP32", &[2, 2, 3], values(&data)).unwrap_err();
    assert!(error.contains("has NaN at index [1, 1, 1] (element 10)"), "{error}");
    data[10] = f32::NEG_INFINITY;
    let error = run("input", "FP32", &[2, 2, 3], values(&data)).unwrap_err();
    assert!(error.contains("has infinity at index [1, 1, 1]"), "{error}");
}

#[test]
fn the_model_the_version_and_the_outputs_are_checked() {
    let info = fake::info();
    assert!(check_model(&info, "toy", "").is_ok() && check_model(&info, "toy", "3").is_ok());
    let unknown = |r: Result<(), InferError>| match r {
        Err(InferError::UnknownModel(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(unknown(check_model(&info, "boat", "")).contains(r#"ask for "toy""#));
    assert!(unknown(check_model(&info, "toy", "9")).contains(r#"no version "9"; ask for "3""#));
    assert!(check_outputs(&info, []).is_ok() && check_outputs(&info, ["logits"]).is_ok());
    let error = check_outputs(&info, ["probs"]).unwrap_err().to_string();
    assert_eq!(error, r#"model "toy" has no output "probs"; its output is "logits""#);
    assert!(check_outputs(&info, ["logits", "logits"]).is_err());
}

#[test]
fn a_model_of_one_input_takes_exactly_one() {
    let info = fake::info();
    assert!(check_inputs(&info, &["input"]).is_ok());
    let none = check_inputs(&info, &[]).unwrap_err().to_string();
    assert_eq!(none, r#"no input was sent; send "input""#);
    let two = check_inputs(&info, &["a", "b"]).unwrap_err().to_string();
    assert_eq!(two, r#"2 inputs were sent ("a", "b", ...); model "toy" takes one, "input""#);
}

#[test]
fn several_inputs_are_told_by_name() {
    let refused = |sent: &[&str]| check_inputs(&fake::tokens(), sent).unwrap_err().to_string();
    assert!(check_inputs(&fake::tokens(), &["token_type_ids", "input_ids"]).is_ok());
    assert!(check_inputs(&fake::tokens(), &["text"]).is_ok());
    assert_eq!(refused(&[]), r#"no input was sent; send "input_ids""#);
    assert_eq!(refused(&["attention_mask"]), r#"input "input_ids" is missing; send it"#);
    let error = refused(&["input_ids", "input_ids"]);
    assert_eq!(error, r#"input "input_ids" is sent more than once; send it once"#);
    let error = refused(&["ids"]);
    assert!(error.contains(r#"has no input "ids"; its inputs are "input_ids", "att"#), "{error}");
    let error = refused(&["text", "input_ids"]);
    assert!(error.contains(r#"in place of all others; drop it, or drop "input_ids""#), "{error}");
    assert!(check_inputs(&fake::info(), &["text"]).is_err(), "no tokenizer, no text");
}

#[test]
fn sequences_have_any_length_but_one_length() {
    let ids = ("input_ids", &[2i64, 3][..], &[1i64, 2, 3, 4, 5, 6][..]);
    assert!(tokens(&[ids]).is_ok());
    assert!(tokens(&[("input_ids", &[1, 5], &[0; 5])]).is_ok());
    let error = tokens(&[("input_ids", &[1, 6], &[0; 6])]).unwrap_err();
    assert!(error.contains("dimension 1 is 6, not 1 to 5; send [batch, 1..5] with"), "{error}");
    assert!(tokens(&[("input_ids", &[1, 0], &[])]).unwrap_err().contains("dimension 1 is 0"));
    let error = tokens(&[ids, ("attention_mask", &[1, 3], &[1; 3])]).unwrap_err();
    let wanted =
        r#"input "attention_mask" has a batch of 1, input "input_ids" one of 2; send the same"#;
    assert_eq!(error, wanted);
    let error = tokens(&[ids, ("attention_mask", &[2, 2], &[1; 4])]).unwrap_err();
    assert!(
        error.ends_with("[2, 2], input \"input_ids\" [2, 3]: dimension 1 must be the same"),
        "{error}"
    );
}

#[test]
fn integers_without_a_meaning_are_refused_with_their_place() {
    let error = tokens(&[("input_ids", &[2, 2], &[0, 29, 30, 1])]).unwrap_err();
    assert_eq!(error, r#"input "input_ids" has 30 at index [1, 0] (element 2); send 0 to 29"#);
    let error = tokens(&[("input_ids", &[1, 2], &[-1, 0])]).unwrap_err();
    assert!(error.contains("has -1 at index [0, 0]"), "{error}");
}

#[test]
fn token_ids_may_be_narrow() {
    let raw: Vec<u8> = [5i32, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let stated = Stated { name: "input_ids", datatype: "INT32", shape: &[1, 2] };
    let query = validate(&fake::tokens(), vec![(stated, Contents::Raw(raw.into()))]).unwrap();
    let wanted = ("input_ids".to_string(), HostTensor::from_i64(vec![1, 2], &[5, 0]));
    assert_eq!(query, Query::Tensors(vec![wanted]));
    let stated = Stated { datatype: "INT16", ..stated };
    let error = validate(&fake::tokens(), vec![(stated, Contents::Raw(Bytes::new()))]).unwrap_err();
    assert!(error.to_string().ends_with(r#"datatype "INT16"; send INT64 or INT32"#), "{error}");
}

#[test]
fn texts_are_not_longer_than_a_book() {
    let stated = Stated { name: "text", datatype: "BYTES", shape: &[2] };
    let longest = "x".repeat(1 << 20);
    for (second, fits) in [(longest.clone(), true), (longest + "x", false)] {
        let json = RawValue::from_string(format!("[\"\", \"{second}\"]")).unwrap();
        let length = (second.len() as u32).to_le_bytes();
        let raw = [&[0u8; 4][..], &length, second.as_bytes()].concat();
        let all = [
            Contents::Raw(raw.into()),
            Contents::Texts(vec![Bytes::new(), second.into()]),
            Contents::Json(&json),
        ];
        for contents in all {
            let outcome = validate(&fake::tokens(), vec![(stated, contents)]);
            let why = outcome.err().map(|e| e.to_string());
            let wanted = "input \"text\": text 1 has 1048577 bytes; send at most 1048576";
            assert_eq!(why.as_deref(), (!fits).then_some(wanted));
        }
    }
}

#[test]
fn ids_are_short() {
    assert!(check_id("").is_ok() && check_id(&"x".repeat(256)).is_ok());
    let error = check_id(&"x".repeat(257)).unwrap_err();
    let why = "the request's id has 257 bytes; send at most 256";
    assert_eq!(error, InferError::BadInput(why.into()));
}

#[test]
fn parameters_that_change_the_answer_are_refused() {
    assert!(check_parameters("the output", ["priority", "binary_data"]).is_ok());
    let error = check_parameters("the output", ["classification"]).unwrap_err().to_string();
    assert!(error.contains("the output has the parameter classification"), "{error}");
}

#[test]
fn text_from_clients_stays_short_and_on_one_line() {
    let text = shown(&format!("a\nb{}", "é".repeat(1000)));
    assert!(!text.contains('\n') && text.chars().count() < 100, "{text}");
}

proptest! {
    #[test]
    fn no_tokens_or_texts_panic(
        name in "input_ids|attention_mask|text",
        datatype in "INT64|INT32|BYTES",
        shape in proptest::collection::vec(-1i64..7, 0..4),
        bytes in proptest::collection::vec(any::<u8>(), 0..128),
        typed in proptest::collection::vec(-2i64..40, 0..32),
    ) {
        let bytes = Bytes::from(bytes);
        let all = [
            Contents::Raw(bytes.clone()), Contents::Integers(typed), Contents::Texts(vec![bytes]),
        ];
        for contents in all {
            let stated = Stated { name: &name, datatype: &datatype, shape: &shape };
            match validate(&fake::tokens(), vec![(stated, contents)]) {
                Ok(Query::Tensors(t)) => {
                    prop_assert!(t[0].1.to_i64().unwrap().iter().all(|v| (0..30).contains(v)));
                }
                Ok(Query::Texts(texts)) => prop_assert_eq!(texts.len() as i64, shape[0]),
                Err(e) => prop_assert!(!e.to_string().contains('\n')),
            }
        }
    }

    #[test]
    fn no_statement_panics(
        name in "input|.*",
        datatype in "FP32|.*",
        shape in prop_oneof![
            proptest::collection::vec(any::<i64>(), 0..12),
            (-1i64..6).prop_map(|b| vec![b, 2, 3]),
        ],
        bytes in proptest::collection::vec(any::<u8>(), 0..128),
        typed in proptest::collection::vec(any::<f32>(), 0..32),
    ) {
        for contents in [Contents::Raw(Bytes::from(bytes.clone())), Contents::Floats(typed)] {
            let stated = Stated { name: &name, datatype: &datatype, shape: &shape };
            match validate(&fake::info(), vec![(stated, contents)]) {
                Ok(Query::Tensors(t)) => {
                    prop_assert!(t[0].1.to_f32().unwrap().iter().all(|v| v.is_finite()));
                }
                Ok(Query::Texts(_)) => prop_assert!(false, "no tokenizer, no text"),
                Err(e) => prop_assert!(!e.to_string().contains('\n')),
            }
        }
    }
}
