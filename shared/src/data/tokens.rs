//! What a token of a text is: a byte, a character, or what a tokenizer makes of it.

use std::path::Path;

use super::{DataError, csv::content};
use crate::text::Tokenizer;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextUnit {
    /// 256 tokens, for any text.
    #[default]
    Byte,
    /// The characters that the file has, in the order of Unicode; for `text` only.
    Character,
    /// The tokens of a `tokenizer.json`.
    Tokenizer,
}

/// A unit with what it needs.
pub enum Tokens {
    Byte,
    Character,
    Tokenizer(Tokenizer),
}

impl Tokens {
    /// `data` is the file that is read, for errors.
    pub fn of(data: &Path, unit: TextUnit, tokenizer: Option<&Path>) -> Result<Self, DataError> {
        Ok(match (unit, tokenizer) {
            (TextUnit::Byte, _) => Tokens::Byte,
            (TextUnit::Character, _) => Tokens::Character,
            (TextUnit::Tokenizer, Some(file)) => {
                Tokens::Tokenizer(Tokenizer::open(file).map_err(|e| content(data, e.to_string()))?)
            }
            (TextUnit::Tokenizer, None) => {
                let problem = "is read with a tokenizer, and the model has none: set \
                               data.tokenizer or weights.tokenizer to a tokenizer.json";
                return Err(content(data, problem.into()));
            }
        })
    }
}
