//! Tests of reading generation requests. What clients do is in `serve/text_clients_tests`.

use super::*;
use crate::{proto::inference::InferTensorContents, serve::fake};

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.into(),
        ..Default::default()
    }
}

fn request(input: InferInputTensor, raw: &[u8]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "toy".into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.to_vec().into()],
        ..Default::default()
    }
}

fn parsed(request: ModelInferRequest) -> Result<Asked, String> {
    parse(&fake::info(), request).map_err(|e| e.to_string())
}

#[test]
fn prompts_come_raw_or_typed() {
    let text = request(input(TEXT_INPUT, "BYTES", &[1, 1]), b"\x03\0\0\0abc");
    assert_eq!(parsed(text).unwrap().prompt, Prompt::Text("abc".into()));
    let ids = [5i64.to_le_bytes(), (-1i64).to_le_bytes()].concat();
    let raw = request(input(ID_INPUT, "INT64", &[2]), &ids);
    assert_eq!(parsed(raw).unwrap().prompt, Prompt::Ids(vec![5, -1]));
    let mut typed = request(input(ID_INPUT, "INT64", &[1, 2]), &[]);
    typed.raw_input_contents.clear();
    typed.inputs[0].contents =
        Some(InferTensorContents { int64_contents: vec![7, 8], ..Default::default() });
    assert_eq!(parsed(typed).unwrap().prompt, Prompt::Ids(vec![7, 8]));
}

#[test]
fn contents_that_do_not_fit_are_refused() {
    for (input, raw, why) in [
        (input(TEXT_INPUT, "BYTES", &[1]), &b"\x04\0\0\0abc"[..], "one BYTES element"),
        (input(TEXT_INPUT, "BYTES", &[1]), b"\xff\xff\xff\xff", "one BYTES element"),
        (input(TEXT_INPUT, "BYTES", &[2]), b"\x01\0\0\0a", "one BYTES element"),
        (input(TEXT_INPUT, "BYTES", &[1]), b"\x01\0\0\0\xff", "not UTF-8"),
        (input(TEXT_INPUT, "INT64", &[1]), b"\x01\0\0\0a", "send BYTES"),
        (input(ID_INPUT, "INT64", &[1, 2]), b"12345678", "has 1 values, its shape 2"),
        (input(ID_INPUT, "INT64", &[1]), b"1234567", "has 0 values"),
        (input(ID_INPUT, "INT64", &[2, 1]), b"12345678", "[n] or [1, n]"),
        (input(ID_INPUT, "INT32", &[1]), b"12345678", "send INT64"),
        (input("pixels", "INT64", &[1]), b"12345678", "no input \"pixels\""),
    ] {
        let error = parsed(request(input, raw)).unwrap_err();
        assert!(error.contains(why), "{error}: not {why}");
    }
}

#[test]
fn a_prompt_is_not_longer_than_any_other_text() {
    let of = |bytes: usize| {
        let raw = [&(bytes as u32).to_le_bytes()[..], &vec![b'x'; bytes]].concat();
        parsed(request(input(TEXT_INPUT, "BYTES", &[1]), &raw))
    };
    assert!(of(1 << 20).is_ok());
    let error = of((1 << 20) + 1).unwrap_err();
    assert_eq!(error, "input text_input: text 0 has 1048577 bytes; send at most 1048576");
}

#[test]
fn parameters_are_read_and_checked() {
    let with = |name: &str, value: ParameterChoice| {
        let mut request = request(input(ID_INPUT, "INT64", &[1]), b"12345678");
        request.parameters.insert(name.into(), InferParameter { parameter_choice: Some(value) });
        parsed(request)
    };
    let text = |text: &str| ParameterChoice::StringParam(text.into());
    assert_eq!(with("max_tokens", ParameterChoice::Uint64Param(9)).unwrap().max_tokens, 9);
    assert_eq!(with("seed", ParameterChoice::Int64Param(-1)).unwrap().sampling.seed, u64::MAX);
    assert_eq!(
        with("temperature", ParameterChoice::Int64Param(1)).unwrap().sampling.temperature,
        1.0
    );
    assert_eq!(with("stop", text("[\"a\", \"b\"]")).unwrap().stop, ["a", "b"]);
    assert_eq!(with("stop", text("[")).unwrap().stop, ["["]);
    with("triton_enable_empty_final_response", ParameterChoice::BoolParam(true)).unwrap();
    for (name, value) in [
        ("max_tokens", ParameterChoice::Int64Param(-1)),
        ("temperature", ParameterChoice::DoubleParam(f64::NAN)),
        ("top_p", ParameterChoice::DoubleParam(0.0)),
        ("top_k", ParameterChoice::DoubleParam(1.5)),
        ("stop", text("")),
        ("stop", text("[\"a\", \"b\", \"c\", \"d\", \"e\"]")),
        ("stream", text("true")),
        ("max_token", ParameterChoice::Int64Param(1)),
    ] {
        let error = with(name, value).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}
