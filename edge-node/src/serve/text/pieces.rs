//! An answer piece by piece: tokens from a generator become text that is final.
//!
//! A piece is given out as soon as its text cannot change any more: characters are whole
//! ([`TextStream`]) and no stop string begins in it ([`Stops`]). A token travels with the last of
//! its text. Streamed or not, an answer is the concatenation of its pieces, so both are the same.

use std::collections::VecDeque;

use cleave_shared::text::{TextError, TextStream};
use futures_util::stream;
use tokio_stream::{Stream, StreamExt};

use super::{
    super::{Event, Events, Finish, InferError},
    stop::Stops,
};

/// A generated token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    pub id: i64,
    pub logprob: f32,
}

/// The next part of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    /// The tokens whose text ends in this piece.
    pub tokens: Vec<Token>,
    /// Set in the last piece.
    pub finish: Option<Finish>,
    /// Tokens generated so far, those whose text is not given out included.
    pub generated: usize,
}

/// One answer on its way; dropping it ends the generation.
pub struct Pieces {
    /// None once the answer is complete.
    events: Option<Events>,
    words: Words,
    max_tokens: usize,
    generated: usize,
}

impl Pieces {
    /// Without a decoder the pieces have tokens only. `max_tokens` is what the generator was told.
    pub fn new(
        events: Events,
        decoder: Option<TextStream>,
        stops: Stops,
        max_tokens: usize,
    ) -> Self {
        let words = Words { decoder, stops, ..Words::default() };
        Self { events: Some(events), words, max_tokens, generated: 0 }
    }

    /// The next piece; none after the one with `finish`, and after an error.
    pub async fn next(&mut self) -> Option<Result<Piece, InferError>> {
        let mut events = self.events.take()?;
        let next = self.advance(&mut events).await;
        if let Ok(Piece { finish: None, .. }) = next {
            self.events = Some(events);
        }
        Some(next)
    }

    /// The pieces as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Piece, InferError>> + Send {
        stream::unfold(self, |mut pieces| async {
            let next = pieces.next().await?;
            Some((next, pieces))
        })
    }

    async fn advance(&mut self, events: &mut Events) -> Result<Piece, InferError> {
        let mut piece = Piece::default();
        while piece.finish.is_none() {
            match events.next().await.transpose()? {
                Some(Event::Token { id, logprob }) => {
                    self.generated += 1;
                    self.words.push(Token { id, logprob }, &mut piece)?;
                }
                Some(Event::End(finish)) => self.words.end(finish, &mut piece)?,
                None => return Err(InferError::Internal("the generation broke off".into())),
            }
            let empty = piece.text.is_empty() && piece.tokens.is_empty();
            // The end follows the last token at once: it goes into the same piece.
            if !empty && self.generated < self.max_tokens {
                break;
            }
        }
        piece.generated = self.generated;
        Ok(piece)
    }
}

/// Decoding and stop strings, without waiting for anything.
#[derive(Default)]
struct Words {
    decoder: Option<TextStream>,
    stops: Stops,
    /// Tokens since the last whole character.
    unclear: Vec<Token>,
    /// Tokens that are decoded but not given out, and the bytes of the answer that they stand for.
    held: VecDeque<(Token, usize, usize)>,
    /// Bytes decoded and bytes given out.
    decoded: usize,
    given: usize,
}

impl Words {
    fn push(&mut self, token: Token, piece: &mut Piece) -> Result<(), InferError> {
        let Some(decoder) = &mut self.decoder else {
            piece.tokens.push(token);
            return Ok(());
        };
        let text = match decoder.push(token.id) {
            Ok(text) => text,
            // Models often have a few more rows than their vocabulary has tokens: no text.
            Err(TextError::Id { .. }) => String::new(),
            Err(e) => return Err(undecodable(&e)),
        };
        self.unclear.push(token);
        self.take(&text, piece);
        Ok(())
    }

    /// The rest, when the generator has ended.
    fn end(&mut self, finish: Finish, piece: &mut Piece) -> Result<(), InferError> {
        if let Some(decoder) = self.decoder.take() {
            let text = decoder.finish().map_err(|e| undecodable(&e))?;
            self.take(&text, piece);
        }
        if piece.finish.is_none() {
            piece.text += &self.stops.finish();
            piece.tokens.extend(self.held.drain(..).map(|(token, ..)| token));
            piece.tokens.append(&mut self.unclear);
            piece.finish = Some(finish);
        }
        Ok(())
    }

    /// Takes decoded text; what is certain goes to the piece.
    fn take(&mut self, text: &str, piece: &mut Piece) {
        if text.is_empty() {
            return;
        }
        let begin = self.decoded;
        self.decoded += text.len();
        let end = self.decoded;
        self.held.extend(self.unclear.drain(..).map(|token| (token, begin, end)));
        let (certain, found) = self.stops.push(text);
        self.given += certain.len();
        piece.text += &certain;
        // At a stop string, a token of which a part is given out belongs to the answer.
        let given = self.given;
        let out =
            |&(_, begin, end): &(Token, usize, usize)| end <= given || (found && begin < given);
        while self.held.front().is_some_and(out) {
            piece.tokens.extend(self.held.pop_front().map(|(token, ..)| token));
        }
        if found {
            piece.finish = Some(Finish::Stop);
        }
    }
}

fn undecodable(error: &TextError) -> InferError {
    InferError::Internal(error.to_string())
}
