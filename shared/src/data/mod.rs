//! What a node trains on and measures with: samples with labels, in an order that a seed decides.
//!
//! A [`DataSpec`] (from the config) opens a [`Dataset`]: the digits embedded in the binary, files of
//! images, numbers or text, or what [`prepare`] made of them. [`Split`] deals its samples into
//! training, validation and test parts, [`Partition`] deals the training part out among edges,
//! [`BatchPlan`] says which of them step `n` trains on, [`Feed`] makes those a [`Batch`] for the model.
//! Nothing here keeps a position: the batch of a step follows from the seed and the step alone, so a
//! run resumed from any checkpoint sees the batches it would have.

mod clean;
mod csv;
mod dataset;
mod digits;
mod feed;
mod idx;
mod images;
mod labelled_text;
mod line;
mod normalise;
mod partition;
mod plan;
mod prepared;
mod shuffle;
mod split;
mod table;
mod text;
mod tokens;

use std::{io, path::PathBuf, sync::Arc};

pub(crate) use self::shuffle::shuffle;
pub use self::{
    clean::Dropped,
    csv::LabelKind,
    dataset::{Batch, Dataset, INPUT, Target, gather},
    digits::digits,
    feed::Feed,
    idx::{IdxDataset, IdxError},
    images::{ImageFolder, grey, undecodable},
    line::synthetic_line,
    normalise::Normalisation,
    partition::{Partition, PartitionKind},
    plan::BatchPlan,
    prepared::{Manifest, Prepared, prepare},
    split::{Part, Split},
    table::{Column, Table},
    text::TextDataset,
    tokens::{TextUnit, Tokens},
};
use crate::{
    checkpoint::CheckpointError,
    model::ModelSpec,
    progress::{Progress, unseen},
    tensor::DType,
};

/// Why there is nothing to train on.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("data file {}: {source}; check the paths of the data set", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("data file {file}: {source}")]
    Idx { file: String, source: IdxError },
    #[error(
        "{images} images in {images_file}, {labels} labels in {labels_file}: \
         give the two files of one set"
    )]
    Counts { images: usize, images_file: String, labels: usize, labels_file: String },
    #[error(
        "embedded {file} does not match data/digits/SHA256SUMS: restore data/digits and rebuild"
    )]
    Checksum { file: &'static str },
    #[error("data file {}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
    #[error(
        "{data}: {rows} rows cannot be used, such as {place}: {reason}; edge-node prepare leaves \
         them out"
    )]
    Dirty { data: String, rows: usize, place: String, reason: String },
    #[error("{data} does not fit the model: {problem}")]
    Fit { data: String, problem: String },
    #[error("prepared data {}: {problem}", path.display())]
    Prepared { path: PathBuf, problem: String },
    #[error("the normalisation of {input} cannot be used: prepare the data again")]
    Normalisation { input: String },
    #[error(transparent)]
    Write(#[from] CheckpointError),
    #[error("no samples to make batches of: the data set is too small to split, give a larger one")]
    NoSamples,
    #[error("train.topology: {0}")]
    Partition(String),
    #[error("batch size 0: set it to at least 1")]
    BatchSize,
}

/// A data set by kind; a new kind is one file and one variant here.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataSpec {
    /// The 8 x 8 digits embedded in the binary.
    #[serde(deserialize_with = "no_fields")]
    Digits,
    /// Images and labels in IDX files, uncompressed.
    Idx { images: PathBuf, labels: PathBuf },
    /// A folder for each class, with PNG, JPEG and PPM files.
    Images {
        path: PathBuf,
        /// `[channels, height, width]` of a sample; without it, what the model takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<[usize; 3]>,
    },
    /// Numeric columns, and one that is the label.
    Csv {
        path: PathBuf,
        label: String,
        #[serde(default)]
        target: LabelKind,
        /// Without it all columns but the label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        features: Option<Vec<String>>,
    },
    /// A text to learn the next token of, in windows of `sequence` tokens.
    Text {
        path: PathBuf,
        sequence: usize,
        #[serde(default)]
        unit: TextUnit,
        /// A `tokenizer.json`, for that unit; without it, the model's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokenizer: Option<PathBuf>,
    },
    /// Texts with a class, cut or padded to `sequence` tokens.
    LabelledText {
        path: PathBuf,
        #[serde(default = "text_column")]
        text: String,
        #[serde(default = "label_column")]
        label: String,
        sequence: usize,
        #[serde(default)]
        unit: TextUnit,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tokenizer: Option<PathBuf>,
    },
    /// Points near the line y = 3x.
    SyntheticLine { samples: usize, noise: f32, seed: u64 },
    /// A folder that `edge-node prepare` wrote.
    Prepared { path: PathBuf },
}

fn text_column() -> String {
    "text".into()
}

fn label_column() -> String {
    "label".into()
}

/// serde does not deny unknown fields next to the tag of a unit variant; this does.
fn no_fields<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    serde::Deserialize::deserialize(deserializer).map(|Nothing {}| ())
}

impl DataSpec {
    /// With what is left out taken from the model: the shape of its images, and its tokenizer.
    pub fn for_model(mut self, spec: &ModelSpec, model_tokenizer: Option<PathBuf>) -> Self {
        match &mut self {
            DataSpec::Images { input, .. } => {
                let ports = spec.inputs();
                let floats = ports.iter().find(|port| port.dtype == DType::F32);
                let shape = floats.and_then(|port| port.largest().try_into().ok());
                *input = input.or(shape);
            }
            DataSpec::Text { unit: TextUnit::Tokenizer, tokenizer, .. }
            | DataSpec::LabelledText { unit: TextUnit::Tokenizer, tokenizer, .. } => {
                *tokenizer = tokenizer.take().or(model_tokenizer);
            }
            _ => {}
        }
        self
    }

    /// Reads and checks the whole set; a row that cannot be used is an error.
    pub fn open(&self) -> Result<Arc<dyn Dataset>, DataError> {
        let (dataset, dropped) = self.collect(&unseen)?;
        let rows = dropped.rows();
        match dropped.reasons().next() {
            None => Ok(dataset),
            Some((reason, _, place)) => Err(DataError::Dirty {
                data: dataset.name().into(),
                rows,
                place: place.into(),
                reason: reason.into(),
            }),
        }
    }

    /// Reads the whole set, and leaves out rows that cannot be used. `progress` is told of each image.
    pub fn collect(
        &self,
        progress: Progress<'_>,
    ) -> Result<(Arc<dyn Dataset>, Dropped), DataError> {
        let clean = |dataset: Arc<dyn Dataset>| (dataset, Dropped::default());
        Ok(match self {
            DataSpec::Digits => clean(Arc::new(digits()?)),
            DataSpec::Idx { images, labels } => clean(Arc::new(IdxDataset::open(images, labels)?)),
            DataSpec::Images { path, input } => {
                let input = input.ok_or_else(|| {
                    let problem = "gives no samples: the model does not take images";
                    csv::content(path, problem.into())
                })?;
                let (images, dropped) = ImageFolder::open(path, input, progress)?;
                (Arc::new(images), dropped)
            }
            DataSpec::Csv { path, label, target, features } => {
                let (table, dropped) = csv::read(path, label, *target, features.as_deref())?;
                (Arc::new(table), dropped)
            }
            DataSpec::Text { path, sequence, unit, tokenizer } => {
                let tokens = Tokens::of(path, *unit, tokenizer.as_deref())?;
                clean(Arc::new(TextDataset::open(path, *sequence, &tokens)?))
            }
            DataSpec::LabelledText { path, text, label, sequence, unit, tokenizer } => {
                let tokens = Tokens::of(path, *unit, tokenizer.as_deref())?;
                let (table, dropped) = labelled_text::read(path, [text, label], *sequence, tokens)?;
                (Arc::new(table), dropped)
            }
            DataSpec::SyntheticLine { samples, noise, seed } => {
                clean(Arc::new(synthetic_line(*samples, *noise, *seed)))
            }
            DataSpec::Prepared { path } => clean(Arc::new(Prepared::open(path)?)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_written_by_kind() {
        let idx = DataSpec::Idx { images: "a".into(), labels: "b".into() };
        let images = DataSpec::Images { path: "a".into(), input: None };
        for (spec, json) in [
            (DataSpec::Digits, r#"{"kind":"digits"}"#),
            (idx, r#"{"kind":"idx","images":"a","labels":"b"}"#),
            (images, r#"{"kind":"images","path":"a"}"#),
        ] {
            assert_eq!(serde_json::to_string(&spec).unwrap(), json);
            assert_eq!(serde_json::from_str::<DataSpec>(json).unwrap(), spec);
        }
    }

    #[test]
    fn what_is_left_out_is_the_models() {
        let spec = ModelSpec::builtin("resnet18").unwrap();
        let images = |input| DataSpec::Images { path: "a".into(), input };
        assert_eq!(images(None).for_model(&spec, None), images(Some([3, 224, 224])));
        assert_eq!(images(Some([1, 8, 8])).for_model(&spec, None), images(Some([1, 8, 8])));
        let text = |unit, tokenizer: Option<&str>| DataSpec::Text {
            path: "a".into(),
            sequence: 4,
            unit,
            tokenizer: tokenizer.map(PathBuf::from),
        };
        let own = || Some(PathBuf::from("own"));
        let (byte, token) = (TextUnit::Byte, TextUnit::Tokenizer);
        assert_eq!(text(token, None).for_model(&spec, own()), text(token, Some("own")));
        assert_eq!(text(token, Some("b")).for_model(&spec, own()), text(token, Some("b")));
        assert_eq!(text(byte, None).for_model(&spec, own()), text(byte, None));
    }

    #[test]
    fn a_spec_refuses_what_it_does_not_know() {
        for json in [
            r#"{"kind":"digits","images":"a"}"#,
            r#"{"kind":"idx","images":"a","labels":"b","scale":2}"#,
            r#"{"kind":"idx","images":"a"}"#,
            r#"{"kind":"mnist"}"#,
        ] {
            assert!(serde_json::from_str::<DataSpec>(json).is_err(), "{json}");
        }
    }
}
