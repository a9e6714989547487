//! `edge-node infer`: files that a user has at hand, asked of both nodes.

use std::fs;

use cleave_shared::tensor::HostTensor;
use image::GrayImage;
use serde_json::Value;

use crate::nodes::{CONFIG, Nodes};

/// Any 64 pixels; none is what its neighbour is.
fn pixels() -> Vec<u8> {
    (0..64_usize).map(|i| (i * 37 % 256) as u8).collect()
}

/// What the model takes for them.
fn values() -> Vec<f32> {
    pixels().into_iter().map(|pixel| f32::from(pixel) / 255.0).collect()
}

/// A line of CSV.
fn line(values: &[f32]) -> String {
    values.iter().map(f32::to_string).collect::<Vec<_>>().join(",") + "\n"
}

/// A file of `numpy.save`, format 1.0.
fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let length = (header.len() as u16).to_le_bytes();
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00".as_slice(), length.as_slice(), header.as_bytes(), data.as_slice()]
        .concat()
}

/// What a file's answer is, without its name and its times.
fn answer(line: &str) -> Value {
    let mut answer: Value = serde_json::from_str(line).expect("a JSON object on a line");
    let object = answer.as_object_mut().expect("an object");
    assert!(object.remove("input").is_some_and(|name| name.is_string()), "{line}");
    let times = object.remove("timing_ms").expect("times");
    let names = ["head", "encode", "uplink", "tail", "downlink", "decode", "total"];
    assert!(names.iter().all(|name| times[name].as_f64().is_some_and(|ms| ms >= 0.0)), "{line}");
    answer
}

#[tokio::test]
async fn a_sample_has_one_answer_whatever_file_it_is_in() {
    let nodes = Nodes::start(CONFIG).await;
    let write = |name: &str, bytes: &[u8]| fs::write(nodes.path().join(name), bytes).unwrap();
    let image = GrayImage::from_raw(8, 8, pixels()).expect("64 pixels");
    image.save(nodes.path().join("a.png")).unwrap();
    let inverted = pixels().into_iter().map(|pixel| 255 - pixel).collect();
    let inverted = GrayImage::from_raw(8, 8, inverted).expect("64 pixels");
    inverted.save(nodes.path().join("inverted.png")).unwrap();
    write("a.csv", line(&values()).as_bytes());
    write("a.npy", &npy("1, 8, 8", &values()));
    let labels: String = (0..10).map(|class| format!("digit {class}\n")).collect();
    write("labels.txt", labels.as_bytes());

    let text = nodes.done(&["infer", "a.png", "a.csv", "a.npy", "--json"]).await;
    let answers: Vec<Value> = text.lines().map(answer).collect();
    assert_eq!(answers.len(), 3, "{text}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{text}");
    for words in [["--input", "input=a.npy"], ["--invert", "inverted.png"]] {
        let text = nodes.done(&["infer", "--json", words[0], words[1]]).await;
        assert_eq!(answer(&text), answers[0]);
    }

    // The protocol's own answer, to the last digit.
    let input = HostTensor::from_f32(vec![1, 1, 8, 8], &values());
    let reply = nodes.infer(input).await.unwrap();
    let logits = reply.raw_output_contents[0].chunks_exact(4);
    let logits: Vec<f32> =
        logits.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let output = &answers[0]["outputs"]["logits"];
    assert_eq!(output["datatype"], "FP32");
    assert_eq!(output["shape"], serde_json::json!([1, 10]));
    let data: Vec<f32> = serde_json::from_value(output["data"].clone()).unwrap();
    assert_eq!(data, logits);
    assert_eq!(answers[0]["split_point"], 2);
    assert_eq!(answers[0]["version"], reply.model_version.as_str());
    let top = answers[0]["top"][0].as_array().unwrap();
    assert_eq!(top.len(), 5);
    let best = top[0]["class"].as_u64().unwrap() as usize;
    assert!(logits.iter().all(|logit| *logit <= logits[best]), "{text}");

    let text = nodes.done(&["infer", "a.png", "--top", "2", "--labels", "labels.txt"]).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (5, "a.png"), "{text}");
    assert!(lines[1].starts_with(&format!("  {best} digit {best}  ")), "{text}");
    assert!(lines[1].ends_with(" %") && lines[2].ends_with(" %"), "{text}");
    assert!(lines[3].contains(" ms: head ") && lines[4].contains("split point 2"), "{text}");
}

#[tokio::test]
async fn a_batch_has_an_answer_a_sample_and_mistakes_have_a_line() {
    let mut nodes = Nodes::start(CONFIG).await;
    let write = |name: &str, bytes: &[u8]| {
        fs::write(nodes.path().join(name), bytes).unwrap();
    };
    let header = (0..64).map(|i| format!("p{i}")).collect::<Vec<_>>().join(",") + "\n";
    let one = line(&values());
    write("two.csv", (header.clone() + &one + &line(&[0.5; 64])).as_bytes());
    write("two.npy", &npy("2, 1, 8, 8", &[values(), vec![0.5; 64]].concat()));
    write("short.csv", (header + &one + "1,2,3\n").as_bytes());
    write("many.csv", one.repeat(1025).as_bytes());
    write("wrong.npy", &npy("1, 9, 8", &[0.0; 72]));
    write("a.txt", b"seven");

    let text = nodes.done(&["infer", "--json", "two.csv", "two.npy"]).await;
    let answers: Vec<Value> = text.lines().map(answer).collect();
    assert_eq!(answers[0], answers[1], "{text}");
    assert_eq!(answers[0]["outputs"]["logits"]["shape"], serde_json::json!([2, 10]));
    assert_eq!(answers[0]["top"].as_array().map(Vec::len), Some(2));

    let text = nodes.refused(&["infer", "short.csv"]).await;
    let wanted = "short.csv: line 3 has 3 numbers; input \"input\", FP32 [batch, 1, 8, 8] needs 64";
    assert!(text.contains(wanted), "{text}");
    let text = nodes.refused(&["infer", "many.csv"]).await;
    assert!(text.contains("many.csv: the edge at "), "{text}");
    assert!(text.contains("the batch is 1025"), "{text}");
    let text = nodes.refused(&["infer", "wrong.npy"]).await;
    assert!(text.contains("wrong.npy: has shape [1, 9, 8]; send input \"input\""), "{text}");
    let text = nodes.refused(&["infer", "a.txt"]).await;
    assert!(text.contains("a.txt: the model takes no text"), "{text}");
    let text = nodes.refused(&["infer", "a.doc"]).await;
    assert!(text.contains("a.doc: is of no kind that is read"), "{text}");

    nodes.edge = None;
    let text = nodes.refused(&["infer", "two.csv"]).await;
    assert!(text.contains("no edge node answers at http://127.0.0.1:"), "{text}");
    assert!(text.contains("start one with edge-node serve"), "{text}");
}
