//! Tests of the gRPC service: its parsing alone, and the whole of it over a real socket.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use tonic::{
    Code,
    transport::{Channel, Server, server::TcpIncoming},
};

use super::*;
use crate::{
    proto::inference::{
        grpc_inference_service_client::GrpcInferenceServiceClient,
        model_infer_request::InferRequestedOutputTensor,
    },
    serve::{
        Gated, TextFiles,
        fake::{self, Fake, FakeControl},
        fake_generator::FakeGenerator,
    },
};

const LIMIT: usize = 4096;

/// A client of a server that runs until the test's runtime ends.
async fn client(fake: Fake) -> GrpcInferenceServiceClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (generator, files) = (FakeGenerator::default(), TextFiles::open(None).unwrap());
    let text = Arc::new(TextService::new(Arc::new(generator), "toy".into(), files, 1));
    let control = FakeControl::default();
    let predictor = Gated::new(Arc::new(fake), control.gate.clone());
    let service = grpc_service(Arc::new(predictor), text, Arc::new(control), LIMIT);
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    GrpcInferenceServiceClient::connect(format!("http://{address}")).await.unwrap()
}

fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn raw_request() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "toy".into(),
        id: "abc".into(),
        inputs: vec![InferInputTensor {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2, 3],
            ..Default::default()
        }],
        raw_input_contents: vec![floats(&[1., 2., 3., 4., 5., 6.])],
        ..Default::default()
    }
}

fn typed_request(contents: InferTensorContents) -> ModelInferRequest {
    let mut request = raw_request();
    request.raw_input_contents.clear();
    request.inputs[0].contents = Some(contents);
    request
}

fn requested(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor { name: name.into(), ..Default::default() }
}

#[tokio::test]
async fn infer_over_a_socket() {
    let mut client = client(Fake::default()).await;
    let typed =
        InferTensorContents { fp32_contents: vec![1., 2., 3., 4., 5., 6.], ..Default::default() };
    let mut named = raw_request();
    named.outputs = vec![requested("logits")];
    named.model_version = "3".into();
    for request in [raw_request(), typed_request(typed), named] {
        let reply = client.model_infer(request).await.unwrap().into_inner();
        assert_eq!((reply.id.as_str(), reply.model_version.as_str()), ("abc", "3"));
        assert_eq!(reply.raw_output_contents, [floats(&[21.0, 1.0])]);
        let output = &reply.outputs[0];
        assert_eq!((output.name.as_str(), output.datatype.as_str()), ("logits", "FP32"));
        assert_eq!((&output.shape, &output.contents), (&vec![1, 2], &None));
        let value = |key: &str| reply.parameters[key].parameter_choice.clone();
        assert_eq!(value("split_point"), Some(ParameterChoice::Int64Param(5)));
        assert_eq!(value("uplink_ms"), Some(ParameterChoice::DoubleParam(3.5)));
        assert_eq!(reply.parameters.len(), 7);
    }
}

#[tokio::test]
async fn exits_are_shown_and_can_be_turned_off() {
    let mut client = client(Fake { has_exits: true, ..Fake::default() }).await;
    let mut asked = async |exits: Option<ParameterChoice>| {
        let mut request = raw_request();
        let exits = exits.map(|choice| parameter("exits", choice));
        request.parameters.extend(exits);
        client.model_infer(request).await.map(|reply| reply.into_inner().parameters)
    };
    let shown = asked(None).await.unwrap();
    let value = |key: &str| shown[key].parameter_choice.clone();
    assert_eq!(value("exit"), Some(ParameterChoice::StringParam("pool1,none".into())));
    assert_eq!(value("confidence"), Some(ParameterChoice::DoubleParam(0.75)));
    assert_eq!(value("offline"), Some(ParameterChoice::BoolParam(false)));
    let off = asked(Some(ParameterChoice::BoolParam(false))).await.unwrap();
    assert_eq!((off.len(), off.contains_key("exit")), (7, false));
    let status = asked(Some(ParameterChoice::Int64Param(0))).await.unwrap_err();
    assert!(status.message().contains("exits is not true or false"), "{status}");
}

/// A request in a call that ends after so many minutes, and with this parameter.
fn waiting(minutes: Option<u64>, timeout: Option<ParameterChoice>) -> Request<ModelInferRequest> {
    let mut request = raw_request();
    request.parameters.extend(timeout.map(|choice| parameter("timeout", choice)));
    let mut request = Request::new(request);
    if let Some(minutes) = minutes {
        request.set_timeout(Duration::from_secs(60 * minutes));
    }
    request
}

#[tokio::test]
async fn a_client_says_how_long_it_waits() {
    use ParameterChoice::{BoolParam, Int64Param, StringParam, Uint64Param};

    let fake = Fake::default();
    let waits = fake.waits.clone();
    let mut client = client(fake).await;
    for (request, wanted) in [
        (waiting(None, None), None),
        (waiting(None, Some(Int64Param(0))), None),
        (waiting(Some(9), None), Some(9)),
        (waiting(None, Some(Int64Param(420_000_000))), Some(7)),
        (waiting(Some(9), Some(Uint64Param(420_000_000))), Some(7)),
        (waiting(Some(5), Some(Int64Param(420_000_000))), Some(5)),
    ] {
        client.model_infer(request).await.unwrap();
        assert_eq!(waits.minutes(), wanted);
    }
    for wrong in [Int64Param(-1), BoolParam(true), StringParam("1s".into())] {
        let status = client.model_infer(waiting(None, Some(wrong))).await.unwrap_err();
        let why = "the parameter timeout is not a whole number of microseconds";
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, why));
    }
    // A stream's deadline is that of each of its requests.
    let timeout = Some(Int64Param(420_000_000));
    for (minutes, wanted) in [(9, 7), (5, 5)] {
        let one = waiting(None, timeout.clone()).into_inner();
        let mut requests = Request::new(tokio_stream::iter([one]));
        requests.set_timeout(Duration::from_secs(60 * minutes));
        let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().error_message, "");
        assert_eq!(waits.minutes(), Some(wanted));
    }
}

#[tokio::test]
async fn a_long_id_is_refused() {
    let mut client = client(Fake::default()).await;
    let with = |bytes| ModelInferRequest { id: "x".repeat(bytes), ..raw_request() };
    assert_eq!(client.model_infer(with(256)).await.unwrap().into_inner().id.len(), 256);
    let status = client.model_infer(with(257)).await.unwrap_err();
    let why = "the request's id has 257 bytes; send at most 256";
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, why));
    let requests = tokio_stream::iter([with(257)]);
    let mut answers = client.model_stream_infer(requests).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().error_message, why);
}

#[tokio::test]
async fn health_and_metadata_over_a_socket() {
    let mut up = client(Fake::default()).await;
    let mut down = client(Fake { down: true, ..Fake::default() }).await;
    let model = ModelReadyRequest { name: "toy".into(), version: String::new() };
    assert!(down.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(up.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert!(!down.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    assert!(up.model_ready(model.clone()).await.unwrap().into_inner().ready);
    assert!(!down.model_ready(model).await.unwrap().into_inner().ready);
    let other = ModelReadyRequest { name: "boat".into(), version: String::new() };
    assert_eq!(up.model_ready(other).await.unwrap_err().code(), Code::NotFound);
    let server = up.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server.name, "cleave");
    let model = ModelMetadataRequest { name: "toy".into(), version: "3".into() };
    let model = up.model_metadata(model).await.unwrap().into_inner();
    assert_eq!((&model.versions[..], model.platform.as_str()), (&["3".to_string()][..], "cleave"));
    assert_eq!((&model.inputs[0].shape, &model.outputs[0].shape), (&vec![-1, 2, 3], &vec![-1, 2]));
}

#[tokio::test]
async fn failures_have_their_codes_over_a_socket() {
    let failure = Some(InferError::Deadline("late".into()));
    let mut client = client(Fake { failure, ..Fake::default() }).await;
    let late = client.model_infer(raw_request()).await.unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::DeadlineExceeded, "late"));
    let mut bad = raw_request();
    bad.inputs.clear();
    assert_eq!(client.model_infer(bad).await.unwrap_err().code(), Code::InvalidArgument);
    let mut long = raw_request();
    long.raw_input_contents = vec![vec![0; LIMIT].into()];
    assert_eq!(client.model_infer(long).await.unwrap_err().code(), Code::OutOfRange);
}

#[test]
fn raw_contents_are_not_copied() {
    let request = raw_request();
    let sent = request.raw_input_contents[0].as_ptr();
    let Query::Tensors(inputs) = parse(&fake::info(), request).unwrap().0 else { panic!() };
    assert_eq!(inputs[0].1.data().as_ptr(), sent);
}

#[test]
fn requests_are_refused_with_the_reason() {
    let refused = |request| match parse(&fake::info(), request) {
        Err(InferError::BadInput(text)) => text,
        other => panic!("{other:?}"),
    };
    let change = |edit: fn(&mut ModelInferRequest)| {
        let mut request = raw_request();
        edit(&mut request);
        request
    };
    let both = |r: &mut ModelInferRequest| r.inputs[0].contents = Some(Default::default());
    let nothing = |r: &mut ModelInferRequest| r.raw_input_contents.clear();
    let twice = |r: &mut ModelInferRequest| r.raw_input_contents.push(Bytes::new());
    let short = |r: &mut ModelInferRequest| r.raw_input_contents[0].truncate(20);
    let nan = |r: &mut ModelInferRequest| r.raw_input_contents[0] = floats(&[f32::NAN; 6]);
    let output = |r: &mut ModelInferRequest| r.outputs = vec![requested("probs")];
    let classes = |r: &mut ModelInferRequest| {
        r.outputs = vec![requested("logits")];
        r.outputs[0].parameters.insert("classification".into(), InferParameter::default());
    };
    let cases = [
        (change(both), "send one of them"),
        (change(nothing), "has no contents"),
        (change(twice), "2 entries for 1 input"),
        (change(short), "truncated raw contents: 20 bytes"),
        (change(nan), "NaN at index [0, 0, 0] (element 0)"),
        (change(output), r#"no output "probs""#),
        (change(classes), "classification"),
        (typed_request(Default::default()), "has 0 values"),
        (
            typed_request(InferTensorContents { int_contents: vec![1; 6], ..Default::default() }),
            "values in int_contents",
        ),
    ];
    for (request, why) in cases {
        let error = refused(request);
        assert!(error.contains(why), "{error}");
    }
}

fn token_request(typed: bool) -> ModelInferRequest {
    let (ids, mask) = ([3i64, 29, 0, 7], [1i32, 1, 1, 0]);
    let tensor = |name: &str, datatype: &str, contents| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![2, 2],
        contents,
        ..Default::default()
    };
    let longs = InferTensorContents { int64_contents: ids.to_vec(), ..Default::default() };
    let ints = InferTensorContents { int_contents: mask.to_vec(), ..Default::default() };
    // The mask first: names, not places, say which input is which.
    let inputs = vec![
        tensor("attention_mask", "INT32", typed.then_some(ints)),
        tensor("input_ids", "INT64", typed.then_some(longs)),
    ];
    let raw = vec![
        mask.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        ids.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
    ];
    let raw_input_contents = if typed { Vec::new() } else { raw };
    ModelInferRequest { model_name: "toy".into(), inputs, raw_input_contents, ..Default::default() }
}

#[test]
fn several_inputs_come_raw_or_typed() {
    let integers = |name: &str, v: [i64; 4]| (name.into(), HostTensor::from_i64(vec![2, 2], &v));
    let wanted = Query::Tensors(vec![
        integers("input_ids", [3, 29, 0, 7]),
        integers("attention_mask", [1, 1, 1, 0]),
    ]);
    for typed in [false, true] {
        let (query, outputs) = parse(&fake::tokens(), token_request(typed)).unwrap();
        assert_eq!((query, outputs), (wanted.clone(), vec![0, 1]));
    }
    let mut request = token_request(false);
    request.outputs = vec![requested("pooled")];
    assert_eq!(parse(&fake::tokens(), request).unwrap().1, [1]);

    let mut short = token_request(false);
    short.raw_input_contents.pop();
    let error = parse(&fake::tokens(), short).unwrap_err().to_string();
    assert_eq!(error, "raw_input_contents has 1 entries for 2 inputs; send one for each");
    let mut stray = token_request(true);
    stray.inputs[1].datatype = "INT32".into();
    let error = parse(&fake::tokens(), stray).unwrap_err().to_string();
    assert!(
        error.contains("values in int64_contents; those of INT32 go in int_contents"),
        "{error}"
    );
}

#[test]
fn texts_come_raw_or_typed() {
    let texts = ["héllo", ""].map(|t| Bytes::copy_from_slice(t.as_bytes()));
    let framed = |t: &Bytes| [&(t.len() as u32).to_le_bytes()[..], t].concat();
    let mut request = ModelInferRequest {
        model_name: "toy".into(),
        inputs: vec![InferInputTensor {
            name: "text".into(),
            datatype: "BYTES".into(),
            shape: vec![2],
            ..Default::default()
        }],
        raw_input_contents: vec![texts.iter().flat_map(framed).collect::<Vec<u8>>().into()],
        ..Default::default()
    };
    let wanted = Query::Texts(vec!["héllo".into(), String::new()]);
    assert_eq!(parse(&fake::tokens(), request.clone()).unwrap().0, wanted);
    let mut short = request.clone();
    short.raw_input_contents[0].truncate(10);
    let error = parse(&fake::tokens(), short.clone()).unwrap_err().to_string();
    assert!(error.contains("has 1 texts, shape [2] needs 2"), "{error}");
    short.raw_input_contents[0].truncate(9);
    let error = parse(&fake::tokens(), short).unwrap_err().to_string();
    assert!(error.contains("truncated raw contents: text 0 is longer"), "{error}");
    request.raw_input_contents.clear();
    let typed = InferTensorContents { bytes_contents: texts.to_vec(), ..Default::default() };
    request.inputs[0].contents = Some(typed);
    assert_eq!(parse(&fake::tokens(), request.clone()).unwrap().0, wanted);
    assert!(parse(&fake::info(), request).is_err(), "a model without a tokenizer");
}

proptest! {
    /// A valid message with some bytes changed reaches deeper than random bytes would.
    #[test]
    fn no_message_panics(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6)) {
        let mut bytes = raw_request().encode_to_vec();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(request) = ModelInferRequest::decode(&bytes[..])
            && let Ok((Query::Tensors(inputs), _)) = parse(&fake::info(), request)
        {
            prop_assert_eq!(inputs[0].1.shape()[1..].to_vec(), vec![2, 3]);
        }
    }
}

#[tokio::test]
async fn a_stream_answers_each_request_of_a_plain_model_once() {
    let wrong = ModelInferRequest { model_name: "boat".into(), ..raw_request() };
    let requests = tokio_stream::iter([raw_request(), wrong, raw_request()]);
    let stream = client(Fake::default()).await.model_stream_infer(requests).await.unwrap();
    let mut stream = stream.into_inner();
    for failed in [false, true, false] {
        let answer = stream.message().await.unwrap().unwrap();
        assert_eq!(!answer.error_message.is_empty(), failed, "{}", answer.error_message);
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, "abc");
        if !failed {
            assert_eq!(response.raw_output_contents, [floats(&[21., 1.])]);
            let last = response.parameters["triton_final_response"].parameter_choice.as_ref();
            assert_eq!(last, Some(&ParameterChoice::BoolParam(true)));
        }
    }
    assert!(stream.message().await.unwrap().is_none());
}
