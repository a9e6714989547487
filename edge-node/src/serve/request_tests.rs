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
    validate(&fake::info(), Stated { name, datatype, shape }, contents).map_err(|e| {
        assert!(matches!(e, InferError::BadInput(_)), "{e:?}");
        e.to_string()
    })
}

fn values(values: &[f32]) -> Contents<'static> {
    Contents::Values(values.to_vec())
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
fn a_request_has_exactly_one_input() {
    let info = fake::info();
    assert_eq!(only_input(&info, vec!["a".to_string()], |s| s.as_str()).unwrap(), "a");
    let none = only_input(&info, Vec::<String>::new(), |s| s.as_str()).unwrap_err().to_string();
    assert_eq!(none, r#"no input was sent; send "input""#);
    let two = vec!["a".to_string(), "b".to_string()];
    let two = only_input(&info, two, |s| s.as_str()).unwrap_err().to_string();
    assert!(two.starts_with(r#"2 inputs were sent ("a", "b", ...)"#), "{two}");
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
        for contents in [Contents::Raw(Bytes::from(bytes)), Contents::Values(typed)] {
            let stated = Stated { name: &name, datatype: &datatype, shape: &shape };
            match validate(&fake::info(), stated, contents) {
                Ok(t) => prop_assert!(t.to_f32().unwrap().iter().all(|v| v.is_finite())),
                Err(e) => prop_assert!(!e.to_string().contains('\n')),
            }
        }
    }
}
