//! Questions to a running edge: files or texts that a user has at hand, and the answers with where the time
//! went.
//!
//! A question walks `file` (by its kind through `image`, `csv` or `npy`, fitted to what `input` says that the
//! model takes) → [`EdgeClient`] → `report`, whose `classes` are the likeliest ones. All of it is known from
//! the protocol alone: any edge can be asked, whatever it serves and wherever it is cut.

mod classes;
mod csv;
mod file;
mod image;
mod input;
mod npy;
mod report;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use cleave_shared::{tensor::HostTensor, wire::NamedTensors};

pub use self::{classes::Show, image::Pixels};
use self::{classes::read_labels, file::Kind, input::Takes, report::Reply};
use crate::client::EdgeClient;

/// Characters of a value or of a text that a line repeats at most.
const CLIP: usize = 60;

/// What one request asks about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A file for the model's first input, or a text file.
    File(PathBuf),
    /// Files for several inputs, by their names.
    Named(Vec<(String, PathBuf)>),
    Text(String),
}

/// How it is asked and shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub pixels: Pixels,
    pub show: Show,
    /// A file with the names of the classes, for [`Show::labels`].
    pub labels: Option<PathBuf>,
    pub json: bool,
}

/// What goes to the edge.
enum Values {
    Tensors(NamedTensors),
    /// With the name of the input that takes it.
    Text(String, String),
}

/// Asks one question after the other, and prints each answer when it is there. The first that fails ends it.
///
/// `edge`: `http://HOST:PORT`.
pub async fn infer(
    edge: &str,
    model: &str,
    questions: &[Question],
    options: Options,
    mut print: impl FnMut(&str),
) -> Result<(), String> {
    let Options { pixels, mut show, labels, json } = options;
    if let Some(path) = &labels {
        show.labels = Some(read_labels(path)?);
    }
    let mut client = EdgeClient::connect(edge, model).await?;
    let takes = Takes::of(&client.metadata().await?)?;
    for question in questions {
        let values = question.values(&takes, &pixels)?;
        let sent = Instant::now();
        let answer = match values {
            Values::Tensors(tensors) => client.infer(tensors).await,
            Values::Text(input, text) => client.infer_texts(&input, &[text]).await,
        };
        let total_ms = sent.elapsed().as_secs_f64() * 1e3;
        let answer = answer.map_err(|problem| format!("{}: {problem}", question.heading()))?;
        let reply = Reply::new(question.name(), answer, total_ms, &show)?;
        match json {
            true => print(&format!("{}\n", reply.json())),
            false => print(&reply.render(&question.heading())),
        }
    }
    Ok(())
}

impl Question {
    fn values(&self, takes: &Takes, pixels: &Pixels) -> Result<Values, String> {
        match self {
            Self::Text(text) => Ok(Values::Text(takes.text()?.into(), text.clone())),
            Self::File(path) => of_file(path, takes, pixels),
            Self::Named(files) => {
                let tensors = files.iter().map(|(name, path)| named(name, path, takes, pixels));
                Ok(Values::Tensors(tensors.collect::<Result<NamedTensors, String>>()?))
            }
        }
    }

    /// What a program that reads the answer knows it by.
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Named(files) => {
                let one = |(name, path): &(String, PathBuf)| format!("{name}={}", path.display());
                files.iter().map(one).collect::<Vec<_>>().join(", ")
            }
            Self::Text(text) => text.clone(),
        }
    }

    /// The same for people, on one line.
    fn heading(&self) -> String {
        match self {
            Self::Text(text) => clipped(text),
            _ => self.name(),
        }
    }
}

fn named(
    name: &str,
    path: &Path,
    takes: &Takes,
    pixels: &Pixels,
) -> Result<(String, HostTensor), String> {
    let input = takes.named(name).map_err(|problem| format!("--input: {problem}"))?;
    Ok((name.into(), file::tensor(path, input, pixels)?))
}

fn of_file(path: &Path, takes: &Takes, pixels: &Pixels) -> Result<Values, String> {
    let wrong = |problem: String| file::at(path, &problem);
    if file::kind(path)? == Kind::Text {
        let input = takes.text().map_err(wrong)?;
        return Ok(Values::Text(input.into(), file::text(path)?));
    }
    let input = takes.first().map_err(wrong)?;
    let tensor = file::tensor(path, input, pixels)?;
    Ok(Values::Tensors(vec![(input.name.clone(), tensor)]))
}

/// A text in quotes, escaped to one line and not longer than that should be.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(CLIP) {
        Some((end, _)) => format!("{:?}", format!("{}...", &text[..end])),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use cleave_shared::tensor::DType;

    use super::{input::Input, *};

    #[test]
    fn a_question_that_the_model_does_not_take_says_what_it_takes() {
        let sample = vec![Some(1), Some(8), Some(8)];
        let input = Input { name: "input".into(), dtype: DType::F32, sample };
        let takes = Takes { inputs: vec![input], text: None };
        let refused = |question: Question| match question.values(&takes, &Pixels::default()) {
            Ok(_) => panic!("{question:?} is taken"),
            Err(problem) => problem,
        };
        let wanted = "it takes input \"input\", FP32 [batch, 1, 8, 8]";
        let text = refused(Question::Text("hello".into()));
        assert_eq!(text, format!("the model takes no text; {wanted}"));
        let text = refused(Question::File("a.txt".into()));
        assert_eq!(text, format!("a.txt: the model takes no text; {wanted}"));
        let text = refused(Question::Named(vec![("mask".into(), "m.npy".into())]));
        assert_eq!(text, format!("--input: the model has no input \"mask\"; {wanted}"));
        let text = refused(Question::File("nowhere.npy".into()));
        assert!(text.starts_with("nowhere.npy: cannot be read: "), "{text}");
    }

    #[test]
    fn headings_are_one_short_line() {
        assert_eq!(Question::Text("a\nb".into()).heading(), "\"a\\nb\"");
        let clipped = Question::Text("é".repeat(61)).heading();
        assert_eq!(clipped, format!("\"{}...\"", "é".repeat(60)));
        let files = vec![("ids".into(), "a.npy".into()), ("mask".into(), "b.npy".into())];
        assert_eq!(Question::Named(files).heading(), "ids=a.npy, mask=b.npy");
    }
}
