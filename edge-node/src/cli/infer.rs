//! `edge-node infer`: files or texts, asked of a running edge.

use std::path::PathBuf;

use clap::Args;
use cleave_shared::config::Config;

use crate::infer::{self, Options, Pixels, Question, Show};

const EXAMPLES: &str = "\
Examples:
  edge-node infer seven.png                      a digit, white on black
  edge-node infer --invert scan.jpg              the same, black on white
  edge-node infer samples.csv --top 3            a sample a line
  edge-node infer x.npy y.npy --json             a line of JSON for each file
  edge-node infer --text \"What a film!\"          for a model with a tokenizer
  edge-node infer --input input_ids=ids.npy --input attention_mask=mask.npy
  edge-node infer cat.jpg --labels imagenet.txt --resize 256 \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225    weights of torchvision";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct InferArgs {
    /// Files to ask about, a request each: .png, .jpg, .ppm, .csv, .npy, .txt; - is CSV from the standard input
    #[arg(value_name = "INPUT", required_unless_present_any = ["named", "text"])]
    files: Vec<PathBuf>,
    /// A file for the input of this name; all of them are one request
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = name_and_file)]
    named: Vec<(String, PathBuf)>,
    /// A text, for a model that takes texts; a request each
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// The edge's gRPC address, http://HOST:PORT [default: edge.grpc_listen]
    #[arg(long, value_name = "URL")]
    edge: Option<String>,
    /// How many of the likeliest classes are shown
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Names of the classes, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Shows the output's values instead of classes
    #[arg(long, conflicts_with = "labels")]
    raw: bool,
    /// Prints a JSON object for each request, on one line
    #[arg(long)]
    json: bool,
    /// Of images: black becomes white
    #[arg(long)]
    invert: bool,
    /// Of images: the shorter side's pixels before the middle is cut out [default: what covers the model's input]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=32768))]
    resize: Option<u32>,
    /// Of images: taken from values of 0 to 1, a number for each channel
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Of images: divides what is left, a number for each channel
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
}

fn name_and_file(pair: &str) -> Result<(String, PathBuf), String> {
    match pair.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.into(), file.into()))
        }
        _ => Err("write NAME=FILE, such as input_ids=ids.npy".into()),
    }
}

pub async fn infer(config: &Config, args: InferArgs) -> Result<(), String> {
    let InferArgs { files, named, text, edge, top, labels, raw, json, .. } = args;
    let InferArgs { invert, resize, mean, std, .. } = args;
    let edge = edge.unwrap_or_else(|| format!("http://{}", config.edge.grpc_listen));
    let mut questions: Vec<Question> = files.into_iter().map(Question::File).collect();
    if !named.is_empty() {
        questions.push(Question::Named(named));
    }
    questions.extend(text.into_iter().map(Question::Text));
    let pixels = Pixels { invert, resize, mean, std };
    let show = Show { top: top as usize, labels: None, raw };
    let options = Options { pixels, show, labels, json };
    infer::infer(&edge, &config.edge.model_name, &questions, options, |text| print!("{text}")).await
}
