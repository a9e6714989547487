//! Tests of REST bodies; in a file of their own to keep `rest_body.rs` readable.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::serve::fake;

fn refused(body: impl Into<Bytes>, length: Option<&str>) -> String {
    let length = length.map(|l| HeaderValue::from_str(l).unwrap());
    match parse(&fake::info(), body.into(), length.as_ref()) {
        Err(InferError::BadInput(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn input(extra: Value) -> Value {
    let mut input = json!({"name": "input", "datatype": "FP32", "shape": [1, 2, 3]});
    input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    input
}

#[test]
fn data_and_binary_data_mean_the_same() {
    let tensor = HostTensor::from_f32(vec![1, 2, 3], &[1., 2., 3., 4., 5., 6.]);
    let body = json!({"id": "7", "inputs": [input(json!({"data": [[[1, 2, 3], [4, 5, 6]]]}))]});
    let parsed = parse(&fake::info(), body.to_string().into(), None).unwrap();
    assert_eq!((&parsed.input, parsed.id.as_deref()), (&tensor, Some("7")));
    assert!(!parsed.binary_output);

    let body = json!({
        "inputs": [input(json!({"parameters": {"binary_data_size": 24}}))],
        "outputs": [{"name": "logits", "parameters": {"binary_data": true}}],
    })
    .to_string();
    let length = HeaderValue::from(body.len());
    let body = Bytes::from([body.as_bytes(), tensor.data()].concat());
    let parsed = parse(&fake::info(), body.clone(), Some(&length)).unwrap();
    assert_eq!(parsed.input, tensor);
    assert!(parsed.binary_output);
    let tail = body.slice(body.len() - 24..);
    assert_eq!(parsed.input.data().as_ptr(), tail.as_ptr(), "binary data is not copied");
}

#[test]
fn an_output_overrides_the_request_on_binary_data() {
    let body = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [input(json!({"data": [0, 0, 0, 0, 0, 0]}))],
    });
    assert!(parse(&fake::info(), body.to_string().into(), None).unwrap().binary_output);
    let mut body = body;
    body["outputs"] = json!([{"name": "logits", "parameters": {"binary_data": false}}]);
    assert!(!parse(&fake::info(), body.to_string().into(), None).unwrap().binary_output);
}

#[test]
fn bodies_are_refused_with_the_reason() {
    let data = json!([0, 0, 0, 0, 0, 0]);
    let good = input(json!({"data": data}));
    let cases = [
        (json!({}), "no input was sent"),
        (json!({"inputs": []}), "no input was sent"),
        (json!({"inputs": [good, good]}), "2 inputs were sent"),
        (json!({"inputs": 3}), "expected a sequence"),
        (json!({"inputs": [{"name": "input"}]}), "missing field `datatype`"),
        (json!({"inputs": [input(json!({}))]}), "no contents"),
        (json!({"inputs": [input(json!({"data": [1, 2]}))]}), "2 entries"),
        (json!({"inputs": [input(json!({"data": "AAAA"}))]}), "expected a number or a list"),
        (json!({"inputs": [input(json!({"data": [0, 0, 1e39, 0, 0, 0]}))]}), "infinity at index"),
        (
            json!({"inputs": [input(json!({"data": data, "parameters": {"binary_data_size": 24}}))]}),
            "both data and binary_data_size",
        ),
        (
            json!({"inputs": [input(json!({"parameters": {"binary_data_size": 24}}))]}),
            "but 0 bytes follow",
        ),
        (
            json!({"inputs": [input(json!({"parameters": {"binary_data_size": -1}}))]}),
            "not a number",
        ),
        (
            json!({"inputs": [input(json!({"parameters": {"shared_memory_region": "x"}}))]}),
            "shared_memory_region, which is not supported",
        ),
        (json!({"inputs": [good], "outputs": [{"name": "x"}]}), r#"no output "x""#),
        (json!({"inputs": [good], "parameters": {"binary_data_output": 1}}), "not true or false"),
    ];
    for (body, why) in cases {
        let error = refused(body.to_string(), None);
        assert!(error.contains(why), "{body}: {error}");
    }
    assert!(refused("", None).contains("EOF"));
}

#[test]
fn the_length_of_the_json_must_fit_the_body() {
    let body = json!({"inputs": [input(json!({"parameters": {"binary_data_size": 24}}))]});
    let json = body.to_string();
    assert!(refused(json.clone(), Some("x")).contains("is not a number"));
    assert!(refused(json.clone(), Some("99999")).contains("the body has only"));
    let length = json.len().to_string();
    for extra in [23, 25] {
        let body = [json.as_bytes(), &vec![0; extra]].concat();
        let error = refused(body, Some(&length));
        assert!(error.contains(&format!("binary_data_size 24, but {extra} bytes")), "{error}");
    }
    let json = json!({"inputs": [input(json!({"data": [0, 0, 0, 0, 0, 0]}))]}).to_string();
    let length = json.len().to_string();
    assert!(refused(json + "tail", Some(&length)).contains("4 bytes follow the JSON"));
}

#[test]
fn an_output_that_json_cannot_say_is_an_error() {
    let answer = |output| Prediction { output, timing: Default::default(), split_point: 0 };
    let nan = answer(HostTensor::from_f32(vec![1, 2], &[0.0, f32::NAN]));
    let error = respond(&fake::info(), None, &nan, false).unwrap_err();
    assert!(error.to_string().contains("element 1 is NaN"), "{error}");
    assert!(respond(&fake::info(), None, &nan, true).is_ok());
}

/// Any JSON, with the protocol's own words likely enough to reach the deeper checks.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("input".to_string()),
        Just("FP32".to_string()),
        Just("logits".to_string()),
        ".{0,8}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        Just(json!([1, 2, 3])),
        Just(input(json!({"data": [0, 0, 0, 0, 0, 0]}))),
    ];
    let key = prop_oneof![
        Just("id"),
        Just("inputs"),
        Just("outputs"),
        Just("parameters"),
        Just("name"),
        Just("datatype"),
        Just("shape"),
        Just("data"),
        Just("binary_data_size"),
        Just("binary_data"),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..256), length in any::<Option<u16>>()) {
        let length = length.map(HeaderValue::from);
        prop_assert!(parse(&fake::info(), body.into(), length.as_ref()).is_err());
    }

    #[test]
    fn no_json_panics(inputs in any_json(), outputs in any_json(), parameters in any_json(),
                      tail in proptest::collection::vec(any::<u8>(), 0..32)) {
        let json = json!({"inputs": inputs, "outputs": outputs, "parameters": parameters}).to_string();
        let length = HeaderValue::from(json.len());
        let body = [json.as_bytes(), &tail].concat();
        if let Err(e) = parse(&fake::info(), body.into(), Some(&length)) {
            prop_assert!(!e.to_string().contains('\n'));
        }
    }
}
