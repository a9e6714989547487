//! Text from ids that come one after the other.
//!
//! Decoding each id alone gives wrong text: a character may be spread over several tokens, and a
//! token's leading blank depends on the one before it. So the last emitted piece is decoded again
//! together with what is new, and the difference is the new text (as in Hugging Face's
//! text-generation-inference). Nothing is emitted while a character is incomplete.

use super::{TextError, Tokenizer};

/// What a decoder puts where bytes are no whole character.
const REPLACEMENT: char = '\u{FFFD}';
/// An incomplete character has at most three bytes, and a decoder writes at most one replacement for
/// each of them: more are bytes that will never be text, and nothing to wait for.
const INCOMPLETE: usize = 3;

/// Turns ids into text as they come; see [`Tokenizer::decode_stream`].
pub struct TextStream {
    tokenizer: Tokenizer,
    /// Ids of the last emitted piece, then those that are not emitted yet.
    ids: Vec<i64>,
    emitted: usize,
}

impl TextStream {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), emitted: 0 }
    }

    /// Takes the next id; gives the text that is certain now, often empty or one word.
    pub fn push(&mut self, id: i64) -> Result<String, TextError> {
        // A special token is no text: it neither completes a character nor separates two.
        if self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.tokenizer.checked(id)?;
        self.ids.push(id);
        let text = self.new_text()?;
        let unclear = text.chars().rev().take_while(|&c| c == REPLACEMENT).count();
        if text.is_empty() || (1..=INCOMPLETE).contains(&unclear) {
            return Ok(String::new());
        }
        self.ids.drain(..self.emitted);
        self.emitted = self.ids.len();
        Ok(text)
    }

    /// The end of the text: what was held back, with a replacement character for half a one.
    pub fn finish(mut self) -> Result<String, TextError> {
        self.new_text()
    }

    fn new_text(&mut self) -> Result<String, TextError> {
        let before = self.tokenizer.decode(&self.ids[..self.emitted])?;
        let with = self.tokenizer.decode(&self.ids)?;
        // A decoder may still change the end of what was emitted, such as a blank before a comma.
        let same = before.char_indices().zip(with.chars()).take_while(|((_, a), b)| a == b);
        let common = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
        Ok(with[common..].to_string())
    }
}
