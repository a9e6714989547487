//! Early exits with the real programs: trained, served, and answering for a cloud that is gone.

use cleave_shared::{
    data::{Part, gather},
    model::loss::argmax,
    tensor::HostTensor,
};
use edge_node::proto::inference::{
    InferParameter, ModelInferResponse, infer_parameter::ParameterChoice,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Code, Status};

use crate::nodes::{CONFIG, Nodes, digits, eventually, request};

/// Enough epochs that the model knows the digits, cut behind the second pooling.
fn config(threshold: f64) -> String {
    let exits = format!("[exits]\nenabled = true\nthreshold = {threshold}\n[train]\n");
    CONFIG
        .replace("epochs = 3", "epochs = 8")
        .replace("split_point = 2", "split_point = 4")
        .replace("[train]\n", &exits)
}

fn text(reply: &ModelInferResponse, key: &str) -> String {
    match &reply.parameters[key].parameter_choice {
        Some(ParameterChoice::StringParam(text)) => text.clone(),
        Some(ParameterChoice::BoolParam(value)) => value.to_string(),
        Some(ParameterChoice::DoubleParam(value)) => value.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}

/// What the classes of a batch are said to be.
fn classes(reply: &ModelInferResponse) -> Vec<i64> {
    let shape = reply.outputs[0].shape.iter().map(|&d| d as usize).collect();
    let data = reply.raw_output_contents[0].clone();
    let logits = HostTensor::new(cleave_shared::tensor::DType::F32, shape, data).unwrap();
    logits.to_f32().unwrap().chunks(10).map(|row| argmax(row) as i64).collect()
}

async fn infer(
    nodes: &Nodes,
    input: &HostTensor,
    exits: bool,
) -> Result<ModelInferResponse, Status> {
    let mut request = request(input.clone());
    if !exits {
        let no = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(false)) };
        request.parameters.insert("exits".into(), no);
    }
    nodes.client().await.model_infer(request).await.map(tonic::Response::into_inner)
}

/// A request over HTTP/1.1 by hand; gives the body.
async fn http(nodes: &Nodes, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", nodes.http_port)).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply.split_once("\r\n\r\n").expect("a body").1.to_string()
}

#[tokio::test]
async fn exits_answer_when_they_are_sure_and_when_the_cloud_is_gone() {
    let mut nodes = Nodes::new(&config(0.9));
    nodes.start_cloud().await;
    nodes.done(&["train", "--run", "a"]).await;
    let none = nodes.refused(&["exits", "report"]).await;
    assert!(none.contains("there are none for run:a:"), "{none}");
    let bad = nodes.refused(&["exits", "train", "--after", "pool9"]).await;
    assert!(bad.contains("\"pool9\" is no stage; known: conv1, pool1"), "{bad}");
    let table = nodes.done(&["exits", "train", "--after", "pool1,4"]).await;
    assert!(table.contains("pool1.safetensors") && table.contains("at pool2"), "{table}");

    let report = nodes.done(&["exits", "report", "--part", "test", "--json"]).await;
    let report: Value = serde_json::from_str(&report).unwrap();
    let accuracy = |exit: usize| report["exits"][exit]["accuracy"].as_f64().unwrap();
    assert!(accuracy(1) > 0.8, "{report}");
    assert!(report["accuracy"].as_f64().unwrap() > 0.8, "{report}");
    let at = |row: usize| {
        let left = report["thresholds"][row]["left"].as_array().unwrap();
        left.iter().map(|share| share.as_f64().unwrap()).sum::<f64>()
    };
    let shares: Vec<f64> = (0..7).map(at).collect();
    assert!(shares.is_sorted_by(|a, b| a >= b) && shares[0] > shares[6], "{shares:?}");

    nodes.start_edge().await;
    samples_leave_one_by_one(&nodes, shares[4]).await;
    the_cloud_is_gone(&mut nodes, accuracy(1)).await;
    an_edge_begins_alone(&mut nodes).await;
    exits_belong_to_their_weights(&mut nodes).await;
}

/// The held-out digits as one batch: those that an exit is sure of never cross.
async fn samples_leave_one_by_one(nodes: &Nodes, share: f64) {
    let input = digits(&nodes.config(), 360);
    let reply = infer(nodes, &input, true).await.unwrap();
    let (exit, offline) = (text(&reply, "exit"), text(&reply, "offline"));
    let names: Vec<&str> = exit.split(',').collect();
    assert_eq!((names.len(), offline.as_str()), (360, "false"));
    let left = names.iter().filter(|name| **name != "none").count();
    assert_eq!((left as f64 / 360.0 * 1e6).round(), (share * 1e6).round(), "as the report says");
    assert!((1..360).contains(&left), "{left}");

    // Who did not leave is answered as without exits, in its place.
    let whole = infer(nodes, &input, false).await.unwrap();
    assert!(!whole.parameters.contains_key("exit"));
    let rows = |reply: &ModelInferResponse| -> Vec<Vec<u8>> {
        reply.raw_output_contents[0].chunks(40).map(<[u8]>::to_vec).collect()
    };
    let floats = |row: &[u8]| -> Vec<f32> {
        row.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    for ((name, row), expected) in names.iter().zip(rows(&reply)).zip(rows(&whole)) {
        let differ = floats(&row).iter().zip(floats(&expected)).any(|(a, b)| (a - b).abs() > 1e-3);
        assert_eq!(differ, *name != "none", "{name}");
    }
    let metrics = http(nodes, "GET /metrics", "").await;
    let counted =
        format!("cleave_exit_samples_total{{exit=\"none\",offline=\"false\"}} {}", 360 - left);
    assert!(metrics.contains(&counted), "{counted}: {metrics}");
}

async fn the_cloud_is_gone(nodes: &mut Nodes, floor: f64) {
    nodes.cloud = None;
    let config = nodes.config();
    let input = digits(&config, 360);
    let status = infer(nodes, &input, false).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "as without exits: {status}");
    let reply = infer(nodes, &input, true).await.unwrap();
    assert_eq!(text(&reply, "offline"), "true");
    assert!(text(&reply, "exit").split(',').all(|name| name.starts_with("pool")));
    let dataset = config.data.open().unwrap();
    let split = dataset.split(config.seed);
    let labels = gather(dataset.as_ref(), split.indices(Part::Test)).labels.to_i64().unwrap();
    let right = classes(&reply).iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(right as f64 / 360.0 > floor.min(0.8), "{right} of 360");

    // One sample that an exit is sure of needs no cloud at all; over REST it looks the same.
    let sample = |i: usize| {
        let bytes = input.data().slice(i * 256..(i + 1) * 256);
        HostTensor::new(input.dtype(), vec![1, 1, 8, 8], bytes).unwrap()
    };
    let mut sure = None;
    for i in 0..20 {
        let reply = infer(nodes, &sample(i), true).await.unwrap();
        if text(&reply, "offline") == "false" {
            sure = Some((i, reply));
            break;
        }
    }
    let (i, reply) = sure.expect("a sample that an exit is sure of");
    assert!(text(&reply, "confidence").parse::<f64>().unwrap() >= 0.9);
    let body = json!({"inputs": [{
        "name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8],
        "data": sample(i).to_f32().unwrap(),
    }]});
    let answer = http(nodes, "POST /v2/models/digits/infer", &body.to_string()).await;
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
    assert_eq!(answer["parameters"]["exit"], text(&reply, "exit"));
    assert_eq!(answer["parameters"]["offline"], false);
    let mut body = body;
    body["parameters"] = json!({"exits": false});
    let answer = http(nodes, "POST /v2/models/digits/infer", &body.to_string()).await;
    assert!(answer.contains("does not answer"), "{answer}");
}

/// An edge that is started without a cloud serves its exits, and all of the model once there is one.
async fn an_edge_begins_alone(nodes: &mut Nodes) {
    nodes.edge = None;
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 8);
    let alone = infer(nodes, &input, true).await.unwrap();
    assert!(text(&alone, "exit").split(',').all(|name| name.starts_with("pool")));
    let status = infer(nodes, &input, false).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    nodes.start_cloud().await;
    let whole = eventually("the cloud", async || infer(nodes, &input, false).await.ok()).await;
    assert!(whole.is_some(), "{}", nodes.logs());
    nodes.edge_says("the cloud has agreed").await;
}

/// A run that was trained further has no exits; the edge says so and serves it without.
async fn exits_belong_to_their_weights(nodes: &mut Nodes) {
    nodes.edge = None;
    nodes.write_config(&config(0.9).replace("epochs = 8", "epochs = 9"));
    nodes.done(&["train", "--run", "a", "--resume"]).await;
    nodes.start_edge().await;
    let log = std::fs::read_to_string(nodes.path().join("edge.log")).unwrap();
    assert!(log.contains("served without exits: ") && log.contains("not run:a:360"), "{log}");
    let input = digits(&nodes.config(), 1);
    let reply = eventually("an answer", async || infer(nodes, &input, true).await.ok()).await;
    assert!(!reply.expect("the edge serves").parameters.contains_key("exit"));
}
