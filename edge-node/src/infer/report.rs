//! One answer, as JSON for programs and as lines for people.

use std::{collections::BTreeMap, fmt::Write};

use cleave_shared::tensor::{DType, HostTensor};
use serde::Serialize;

use super::classes::{Class, Show, classes};
use crate::{client::Answer, serve::Timing};

/// Values of a sample that people are shown at most.
const MOST_VALUES: usize = 16;

/// The answer to one request.
#[derive(Debug, Serialize)]
pub struct Reply {
    /// The file, the files with their inputs' names, or the text.
    pub input: String,
    outputs: BTreeMap<String, Output>,
    /// For each sample; left out where the answer is no classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    top: Option<Vec<Vec<Class>>>,
    timing_ms: Times,
    split_point: u64,
    version: String,
    /// Left out where the edge has no exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Output {
    datatype: &'static str,
    shape: Vec<usize>,
    /// Row by row, as the protocol has it in JSON.
    data: Values,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// Where the time went, ms.
#[derive(Debug, Serialize)]
struct Times {
    head: f64,
    encode: f64,
    uplink: f64,
    tail: f64,
    downlink: f64,
    decode: f64,
    /// From the request's first byte to the answer's last, as seen from here.
    total: f64,
}

impl Reply {
    /// `total_ms`: the client's time for all of it.
    pub fn new(input: String, answer: Answer, total_ms: f64, show: &Show) -> Result<Self, String> {
        let top = classes(&answer, show)?;
        let Answer { outputs, timing, split_point, version, exit, offline } = answer;
        let output = |(name, tensor): (String, HostTensor)| match Output::of(&tensor) {
            Ok(output) => Ok((name, output)),
            Err(problem) => Err(format!("output {name:?} of the edge's answer {problem}")),
        };
        let outputs = outputs.into_iter().map(output).collect::<Result<_, String>>()?;
        let offline = exit.is_some().then_some(offline);
        let timing_ms = Times::of(&timing, total_ms);
        Ok(Self { input, outputs, top, timing_ms, split_point, version, exit, offline })
    }

    /// One line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// Under a heading, the classes or else the values of each sample, and the times.
    pub fn render(&self, heading: &str) -> String {
        let mut text = format!("{heading}\n");
        match &self.top {
            Some(top) => render_classes(&mut text, top),
            None => {
                self.outputs.iter().for_each(|(name, output)| output.render(&mut text, name));
            }
        }
        let Times { head, encode, uplink, tail, downlink, decode, total } = &self.timing_ms;
        let _ = writeln!(
            text,
            "  {total:.2} ms: head {head:.2}, encode {encode:.2}, uplink {uplink:.2}, tail {tail:.2}, \
             downlink {downlink:.2}, decode {decode:.2}"
        );
        let _ = write!(text, "  split point {}, weights {}", self.split_point, self.version);
        if let Some(exit) = &self.exit {
            let _ = write!(text, ", exit {exit}");
        }
        if self.offline == Some(true) {
            text += ", without the cloud";
        }
        text + "\n"
    }
}

/// The indent of a sample's lines; before them goes a line with its number, if there are several.
fn begin_sample(text: &mut String, sample: usize, samples: usize) -> &'static str {
    if samples == 1 {
        return "  ";
    }
    let _ = writeln!(text, "  sample {} of {samples}", sample + 1);
    "    "
}

fn render_classes(text: &mut String, top: &[Vec<Class>]) {
    let name = |c: &Class| match &c.label {
        Some(label) => format!("{} {label}", c.class),
        None => c.class.to_string(),
    };
    let width = top.iter().flatten().map(|c| name(c).chars().count()).max().unwrap_or(0);
    for (sample, classes) in top.iter().enumerate() {
        let indent = begin_sample(text, sample, top.len());
        for class in classes {
            let percent = class.probability * 100.0;
            let _ = writeln!(text, "{indent}{:<width$}  {percent:>6.2} %", name(class));
        }
    }
}

impl Output {
    fn of(tensor: &HostTensor) -> Result<Self, String> {
        let data = match tensor.dtype() {
            DType::F32 => tensor.to_f32().map(Values::Floats),
            DType::I64 => tensor.to_i64().map(Values::Integers),
            other => return Err(format!("is {}; FP32 and INT64 are shown", other.name())),
        };
        let data = data.map_err(|e| e.to_string())?;
        Ok(Self { datatype: tensor.dtype().name(), shape: tensor.shape().to_vec(), data })
    }

    fn render(&self, text: &mut String, name: &str) {
        let Self { datatype, shape, data } = self;
        let _ = writeln!(text, "  {name} {datatype} {shape:?}");
        let values = data.shown();
        let samples = shape.first().copied().unwrap_or(1).max(1);
        let each = values.len() / samples;
        for (sample, row) in values.chunks(each.max(1)).enumerate() {
            let indent = begin_sample(text, sample, samples);
            let shown = row.iter().take(MOST_VALUES).map(String::as_str).collect::<Vec<_>>();
            let more = match row.len() > MOST_VALUES {
                true => format!(" ... ({} in all; --json has them)", row.len()),
                false => String::new(),
            };
            let _ = writeln!(text, "{indent}{}{more}", shown.join(", "));
        }
    }
}

impl Values {
    fn shown(&self) -> Vec<String> {
        match self {
            Self::Floats(values) => values.iter().map(f32::to_string).collect(),
            Self::Integers(values) => values.iter().map(i64::to_string).collect(),
        }
    }
}

impl Times {
    fn of(timing: &Timing, total: f64) -> Self {
        let Timing { head_ms, encode_ms, uplink_ms, tail_ms, downlink_ms, decode_ms } = *timing;
        Self {
            head: head_ms,
            encode: encode_ms,
            uplink: uplink_ms,
            tail: tail_ms,
            downlink: downlink_ms,
            decode: decode_ms,
            total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, shape: &[usize], values: &[f32]) -> Answer {
        Answer {
            outputs: vec![(name.into(), HostTensor::from_f32(shape.to_vec(), values))],
            timing: Timing { head_ms: 0.5, uplink_ms: 10.25, ..Default::default() },
            split_point: 4,
            version: "seed-7".into(),
            exit: None,
            offline: false,
        }
    }

    const SHOW: Show = Show { top: 2, labels: None, raw: false };

    #[test]
    fn people_see_classes_and_times() {
        let answer = answer("logits", &[1, 3], &[0.0, 20.0, 0.0]);
        let reply = Reply::new("a.png".into(), answer, 11.0, &SHOW).unwrap();
        assert_eq!(
            reply.render("a.png"),
            "a.png\n  1  100.00 %\n  0    0.00 %\n  11.00 ms: head 0.50, encode 0.00, uplink 10.25, \
             tail 0.00, downlink 0.00, decode 0.00\n  split point 4, weights seed-7\n"
        );
    }

    #[test]
    fn people_see_the_values_of_what_is_no_class() {
        let mut answer = answer("prediction", &[2, 1], &[0.5, -3.0]);
        (answer.exit, answer.offline) = (Some("fc1".into()), true);
        let text = Reply::new("x".into(), answer, 11.0, &SHOW).unwrap().render("x");
        assert!(text.contains("  prediction FP32 [2, 1]\n  sample 1 of 2\n    0.5\n"), "{text}");
        assert!(text.ends_with("weights seed-7, exit fc1, without the cloud\n"), "{text}");
        let long = super::tests::answer("hidden", &[1, 20], &[1.0; 20]);
        let text = Reply::new("x".into(), long, 11.0, &SHOW).unwrap().render("x");
        assert!(text.contains("1, 1 ... (20 in all; --json has them)\n"), "{text}");
    }

    #[test]
    fn programs_get_one_line() {
        let answer = answer("logits", &[1, 2], &[0.1, 0.1]);
        let reply = Reply::new("a \"b\"".into(), answer, 11.0, &SHOW).unwrap();
        assert_eq!(
            reply.json(),
            "{\"input\":\"a \\\"b\\\"\",\"outputs\":{\"logits\":{\"datatype\":\"FP32\",\"shape\":[1,2],\
             \"data\":[0.1,0.1]}},\"top\":[[{\"class\":0,\"probability\":0.5},\
             {\"class\":1,\"probability\":0.5}]],\"timing_ms\":{\"head\":0.5,\"encode\":0.0,\
             \"uplink\":10.25,\"tail\":0.0,\"downlink\":0.0,\"decode\":0.0,\"total\":11.0},\
             \"split_point\":4,\"version\":\"seed-7\"}"
        );
    }
}
