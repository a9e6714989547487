//! A `tokenizer.json`, opened once and shared by every request.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use super::TextStream;
use crate::tensor::HostTensor;

/// The file's name beside a model's weights.
const FILE: &str = "tokenizer.json";
/// Says which token ends a text; written by `save_pretrained` beside the tokenizer.
const SIDE_FILE: &str = "tokenizer_config.json";
/// What fills up short texts, where the file does not say.
const PADDINGS: [&str; 3] = ["[PAD]", "<pad>", "<|pad|>"];
/// What ends a text, where no file says.
const ENDS: [&str; 5] = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>"];

/// Why text and ids could not be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("{path}: is not a tokenizer.json: {problem}")]
    File { path: String, problem: String },
    #[error("a text could not be encoded: {0}")]
    Encode(String),
    #[error("token ids could not be decoded: {0}")]
    Decode(String),
    #[error("token id {id} is not in the vocabulary of {vocabulary} tokens")]
    Id { id: i64, vocabulary: usize },
}

/// Text to token ids and back; clones share one vocabulary.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    path: Arc<Path>,
    padding: i64,
    end: Option<i64>,
}

/// Texts as an encoder takes them, each INT64 `[batch, sequence]`; the sequence is that of the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    pub ids: HostTensor,
    /// 1 for a token, 0 for padding.
    pub mask: HostTensor,
    /// Which of two texts a token belongs to: 0, since each row is one text.
    pub types: HostTensor,
}

impl Tokenizer {
    /// Opens a `tokenizer.json`. What the file says about padding and truncation is left out: rows are
    /// padded to the longest of their batch, and cut where [`Tokenizer::with_longest`] says.
    pub fn open(path: &Path) -> Result<Self, TextError> {
        let fail = |problem: String| TextError::File { path: path.display().to_string(), problem };
        let bytes = fs::read(path).map_err(|e| fail(e.to_string()))?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(&bytes).map_err(|e| fail(one_line(&*e)))?;
        let named = |names: &[&str]| names.iter().find_map(|n| inner.token_to_id(n));
        let padding = inner.get_padding().map(|p| p.pad_id).or_else(|| named(&PADDINGS));
        let end = stated_end(path).and_then(|n| inner.token_to_id(&n)).or_else(|| named(&ENDS));
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| fail(one_line(&*e)))?;
        Ok(Self {
            inner: Arc::new(inner),
            path: path.into(),
            padding: padding.unwrap_or(0).into(),
            end: end.map(i64::from),
        })
    }

    /// The `tokenizer.json` beside a weight file, or in a folder of weights; `None` if there is none.
    pub fn beside(weights: &Path) -> Option<PathBuf> {
        let folder = if weights.is_dir() { weights } else { weights.parent()? };
        Some(folder.join(FILE)).filter(|file| file.is_file())
    }

    /// The same tokenizer cutting texts to at most `longest` tokens, special ones included; they stay.
    pub fn with_longest(self, longest: usize) -> Result<Self, TextError> {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: longest,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        inner.with_truncation(Some(truncation)).map_err(|e| TextError::File {
            path: self.path.display().to_string(),
            problem: format!("{longest} tokens have no room for its special ones: {e}"),
        })?;
        Ok(Self { inner: Arc::new(inner), ..self })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tokens, added ones included: ids are below it.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Ids of a text, with the special tokens that the model wants around it.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, TextError> {
        self.ids(text, true)
    }

    /// Ids of a text as it is: a chat prompt has its special tokens in it already.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<i64>, TextError> {
        self.ids(text, false)
    }

    fn ids(&self, text: &str, specials: bool) -> Result<Vec<i64>, TextError> {
        let encoding = self.inner.encode_fast(text, specials);
        let encoding = encoding.map_err(|e| TextError::Encode(one_line(&*e)))?;
        Ok(encoding.get_ids().iter().map(|&id| i64::from(id)).collect())
    }

    /// Several texts, padded on the right to the longest of them; an empty one has one padding token.
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<TokenBatch, TextError> {
        let rows = texts.iter().map(|t| self.encode(t.as_ref()));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for row in &rows {
            let missing = longest - row.len();
            ids.extend(row);
            ids.extend(std::iter::repeat_n(self.padding, missing));
            mask.extend(std::iter::repeat_n(1, row.len()));
            mask.extend(std::iter::repeat_n(0, missing));
        }
        let tensor = |values: &[i64]| HostTensor::from_i64(vec![rows.len(), longest], values);
        let types = tensor(&vec![0; ids.len()]);
        Ok(TokenBatch { ids: tensor(&ids), mask: tensor(&mask), types })
    }

    /// The text of these ids, without special tokens.
    pub fn decode(&self, ids: &[i64]) -> Result<String, TextError> {
        let ids = ids.iter().map(|&id| self.checked(id)).collect::<Result<Vec<u32>, _>>()?;
        self.inner.decode(&ids, true).map_err(|e| TextError::Decode(one_line(&*e)))
    }

    /// Text piece by piece, as ids are generated; owns what it needs.
    pub fn decode_stream(&self) -> TextStream {
        TextStream::new(self.clone())
    }

    pub(super) fn checked(&self, id: i64) -> Result<u32, TextError> {
        let known = u32::try_from(id).ok().filter(|&id| self.inner.id_to_token(id).is_some());
        known.ok_or(TextError::Id { id, vocabulary: self.vocabulary() })
    }

    /// Id of a token by its text, such as `[CLS]`.
    pub fn token_id(&self, token: &str) -> Option<i64> {
        self.inner.token_to_id(token).map(i64::from)
    }

    /// The token with this id, as the vocabulary writes it.
    pub fn token(&self, id: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// Whether this id is a special token, which is no part of a text.
    pub fn is_special(&self, id: i64) -> bool {
        self.token(id).is_some_and(|t| self.inner.get_added_vocabulary().is_special_token(&t))
    }

    /// Id that fills up short texts.
    pub fn padding_id(&self) -> i64 {
        self.padding
    }

    /// Id that ends a text: `eos_token` of the `tokenizer_config.json` beside the file, or a token with
    /// one of the usual names.
    pub fn end_id(&self) -> Option<i64> {
        self.end
    }
}

/// `eos_token` of the file beside the tokenizer: a string, or an object with `content`.
fn stated_end(path: &Path) -> Option<String> {
    let text = fs::read(path.with_file_name(SIDE_FILE)).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let token = config.get("eos_token")?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(String::from)
}

fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
