//! Tests of REST bodies; in a file of their own to keep `rest_body.rs` readable.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::serve::{Query, fake};

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

fn only(parsed: &Parsed) -> &HostTensor {
    match &parsed.request.query {
        Query::Tensors(inputs) if inputs.len() == 1 => &inputs[0].1,
        other => panic!("{other:?}"),
    }
}

/// Whether the only output is wanted as raw bytes.
fn binary(parsed: &Parsed) -> bool {
    assert_eq!(parsed.outputs.len(), 1);
    parsed.outputs[0].binary
}

#[test]
fn data_and_binary_data_mean_the_same() {
    let tensor = HostTensor::from_f32(vec![1, 2, 3], &[1., 2., 3., 4., 5., 6.]);
    let body = json!({"id": "7", "inputs": [input(json!({"data": [[[1, 2, 3], [4, 5, 6]]]}))]});
    let parsed = parse(&fake::info(), body.to_string().into(), None).unwrap();
    assert_eq!((only(&parsed), parsed.id.as_deref()), (&tensor, Some("7")));
    assert!(!binary(&parsed));

    let body = json!({
        "inputs": [input(json!({"parameters": {"binary_data_size": 24}}))],
        "outputs": [{"name": "logits", "parameters": {"binary_data": true}}],
    })
    .to_string();
    let length = HeaderValue::from(body.len());
    let body = Bytes::from([body.as_bytes(), tensor.data()].concat());
    let parsed = parse(&fake::info(), body.clone(), Some(&length)).unwrap();
    assert_eq!(only(&parsed), &tensor);
    assert!(binary(&parsed));
    let tail = body.slice(body.len() - 24..);
    assert_eq!(only(&parsed).data().as_ptr(), tail.as_ptr(), "binary data is not copied");
}

#[test]
fn an_output_overrides_the_request_on_binary_data() {
    let body = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [input(json!({"data": [0, 0, 0, 0, 0, 0]}))],
    });
    assert!(binary(&parse(&fake::info(), body.to_string().into(), None).unwrap()));
    let mut body = body;
    body["outputs"] = json!([{"name": "logits", "parameters": {"binary_data": false}}]);
    assert!(!binary(&parse(&fake::info(), body.to_string().into(), None).unwrap()));
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
        (json!({"inputs": [good], "parameters": {"timeout": 1.5}}), "timeout is not a whole"),
        (json!({"inputs": [good], "id": "x".repeat(257)}), "id has 257 bytes; send at most 256"),
    ];
    for (body, why) in cases {
        let error = refused(body.to_string(), None);
        assert!(error.contains(why), "{body}: {error}");
    }
    assert!(refused("", None).contains("EOF"));
}

#[test]
fn several_inputs_share_the_bytes_behind_the_json() {
    let input = |name: &str, extra: Value| {
        let mut input = json!({"name": name, "datatype": "INT64", "shape": [1, 2]});
        input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        input
    };
    let integers = |name: &str, v: [i64; 2]| (name.into(), HostTensor::from_i64(vec![1, 2], &v));
    let size = || json!({"parameters": {"binary_data_size": 16}});
    let json = json!({
        "inputs": [input("token_type_ids", size()), input("attention_mask", json!({"data": [[1, 0]]})),
                   input("input_ids", size())],
        "outputs": [{"name": "pooled", "parameters": {"binary_data": true}}, {"name": "states"}],
    })
    .to_string();
    let tail: Vec<u8> = [0i64, 1, 29, 7].iter().flat_map(|v| v.to_le_bytes()).collect();
    let length = HeaderValue::from(json.len());
    let body = Bytes::from([json.as_bytes(), &tail].concat());
    let parsed = parse(&fake::tokens(), body.clone(), Some(&length)).unwrap();
    let wanted = Query::Tensors(vec![
        integers("input_ids", [29, 7]),
        integers("attention_mask", [1, 0]),
        integers("token_type_ids", [0, 1]),
    ]);
    assert_eq!(parsed.request.query, wanted);
    let outputs = [Wanted { place: 1, binary: true }, Wanted { place: 0, binary: false }];
    assert_eq!(parsed.outputs, outputs);
    let error = parse(&fake::tokens(), body.slice(..body.len() - 1), Some(&length)).unwrap_err();
    assert!(error.to_string().starts_with("the inputs together have binary_data_size 32, but 31"));
}

#[tokio::test]
async fn several_outputs_are_answered_each_in_its_form() {
    let tensor = |values: &[f32]| HostTensor::from_f32(vec![1, values.len()], values);
    let outputs = vec![("states".into(), tensor(&[1.5])), ("pooled".into(), tensor(&[2.0, 3.0]))];
    let prediction =
        Prediction { outputs, timing: Default::default(), split_point: 0, exits: None };
    let wanted = [Wanted { place: 1, binary: true }, Wanted { place: 0, binary: false }];
    let response = respond(&fake::tokens(), None, &prediction, &wanted).unwrap();
    let length: usize = response.headers()[&HEADER_LENGTH].to_str().unwrap().parse().unwrap();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let reply: Value = serde_json::from_slice(&body[..length]).unwrap();
    let expected = json!([
        {"name": "pooled", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        {"name": "states", "datatype": "FP32", "shape": [1, 1], "data": [1.5]},
    ]);
    assert_eq!(reply["outputs"], expected);
    assert_eq!(&body[length..], tensor(&[2.0, 3.0]).data());
}

#[test]
fn texts_are_a_list_of_strings() {
    let body = |data: Value| {
        let input = json!({"name": "text", "datatype": "BYTES", "shape": [2], "data": data});
        parse(&fake::tokens(), json!({"inputs": [input]}).to_string().into(), None)
    };
    let wanted = Query::Texts(vec!["a\u{e9}".into(), String::new()]);
    assert_eq!(body(json!(["a\u{e9}", ""])).unwrap().request.query, wanted);
    let error = body(json!(["a"])).unwrap_err().to_string();
    assert_eq!(error, r#"input "text" has 1 texts, shape [2] needs 2"#);
    let error = body(json!([1, 2])).unwrap_err().to_string();
    assert!(error.ends_with("send a list of strings"), "{error}");
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
    let answer = |output| Prediction {
        outputs: vec![("logits".into(), output)],
        timing: Default::default(),
        split_point: 0,
        exits: None,
    };
    let one = |binary| [Wanted { place: 0, binary }];
    let nan = answer(HostTensor::from_f32(vec![1, 2], &[0.0, f32::NAN]));
    let error = respond(&fake::info(), None, &nan, &one(false)).unwrap_err();
    assert!(error.to_string().contains("element 1 is NaN"), "{error}");
    assert!(respond(&fake::info(), None, &nan, &one(true)).is_ok());
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
