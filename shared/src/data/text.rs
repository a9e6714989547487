//! A text file as samples of a language model: windows, whose labels are the tokens one further.
//!
//! The whole file is one sequence; a tokenizer's special tokens are not put around it.

use std::path::Path;

use super::{DataError, Dataset, Target, Tokens, csv::content};
use crate::model::Port;

/// Windows of `length` tokens that follow one another; what is left at the end is not used.
#[derive(Debug, Clone)]
pub struct TextDataset {
    name: String,
    tokens: Vec<i64>,
    length: usize,
    vocabulary: usize,
}

impl TextDataset {
    pub fn open(path: &Path, length: usize, unit: &Tokens) -> Result<Self, DataError> {
        let bytes =
            std::fs::read(path).map_err(|source| DataError::Read { path: path.into(), source })?;
        let (tokens, vocabulary) = match unit {
            Tokens::Byte => (bytes.iter().map(|&b| i64::from(b)).collect(), 256),
            Tokens::Character => characters(utf8(path, &bytes)?),
            Tokens::Tokenizer(tokenizer) => {
                let ids = tokenizer.encode_plain(utf8(path, &bytes)?);
                let ids = ids.map_err(|e| content(path, e.to_string()))?;
                (ids, tokenizer.vocabulary())
            }
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let set = Self { name, tokens, length, vocabulary };
        match length > 0 && !set.is_empty() {
            true => Ok(set),
            false => Err(content(path, format!("is too short for windows of {length} tokens"))),
        }
    }
}

fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    std::str::from_utf8(bytes)
        .map_err(|e| content(path, format!("is not UTF-8 ({e}); unit = \"byte\" reads any file")))
}

fn characters(text: &str) -> (Vec<i64>, usize) {
    let mut known: Vec<char> = text.chars().collect();
    known.sort_unstable();
    known.dedup();
    let token = |c: char| known.binary_search(&c).unwrap_or(0) as i64;
    (text.chars().map(token).collect(), known.len())
}

fn append(tokens: &[i64], out: &mut Vec<u8>) {
    out.extend(tokens.iter().flat_map(|t| t.to_le_bytes()));
}

impl Dataset for TextDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        // The last window needs one token more: its last label.
        self.tokens.len().saturating_sub(1) / self.length.max(1)
    }

    fn inputs(&self) -> Vec<Port> {
        vec![Port::tokens("input_ids", self.length)]
    }

    fn target(&self) -> Target {
        Target::Tokens { length: self.length, vocabulary: self.vocabulary }
    }

    fn write_input(&self, index: usize, _input: usize, out: &mut Vec<u8>) {
        append(&self.tokens[index * self.length..][..self.length], out);
    }

    fn write_label(&self, index: usize, out: &mut Vec<u8>) {
        append(&self.tokens[index * self.length + 1..][..self.length], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::gather;

    fn open(text: &str, length: usize, unit: Tokens) -> Result<TextDataset, DataError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        std::fs::write(&path, text).unwrap();
        TextDataset::open(&path, length, &unit)
    }

    #[test]
    fn labels_are_one_token_further() {
        let set = open("hello, world", 4, Tokens::Byte).unwrap();
        assert_eq!(set.len(), 2);
        let batch = gather(&set, &[1, 0]);
        let text = |t: &crate::tensor::HostTensor| {
            String::from_utf8(t.to_i64().unwrap().iter().map(|&b| b as u8).collect()).unwrap()
        };
        assert_eq!(text(&batch.inputs[0].1), "o, whell");
        assert_eq!(text(&batch.labels), ", woello");
        assert_eq!(batch.labels.shape(), [2, 4]);
    }

    #[test]
    fn characters_are_numbered_in_unicode_order() {
        let set = open("éaßaé", 2, Tokens::Character).unwrap();
        assert_eq!(set.target(), Target::Tokens { length: 2, vocabulary: 3 });
        assert_eq!(gather(&set, &[0]).inputs[0].1.to_i64().unwrap(), [2, 0]);
    }

    #[test]
    fn a_file_too_short_for_one_window_is_refused() {
        let error = open("abcd", 4, Tokens::Byte).unwrap_err().to_string();
        assert!(error.contains("too short for windows of 4 tokens"), "{error}");
        assert!(open("abcde", 4, Tokens::Byte).is_ok());
    }
}
