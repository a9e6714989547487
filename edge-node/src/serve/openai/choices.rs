//! The answers of one request, generated side by side.
//!
//! A request may have several prompts and ask for several answers to each. Each answer is a
//! generation of its own; their pieces come as they are ready, with the number of their choice. A
//! streamed response and one in a piece are both made from this.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt, StreamMap};

use super::parameters::Parameters;
use crate::serve::{
    Generator, InferError,
    text::{Piece, TextRequest, TextService},
};

type PieceStream = Pin<Box<dyn Stream<Item = Result<Piece, InferError>> + Send>>;

/// Tokens of a request, as they are counted for its bill.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt: usize,
    pub generated: usize,
}

/// Answers on their way; dropping them ends their generations.
pub struct Choices {
    running: StreamMap<usize, PieceStream>,
    /// Waited for before the response begins; see [`Choices::begin`].
    first: Option<(usize, Result<Piece, InferError>)>,
    generated: Vec<usize>,
    prompt: usize,
}

impl Choices {
    /// Begins `n` answers to each prompt. Returns once the first piece is there, so that what fails
    /// early, a cloud that is away for example, is the response and not the end of a stream.
    pub async fn begin<G: Generator>(
        service: &TextService<G>,
        prompts: &[Vec<i64>],
        parameters: &Parameters,
    ) -> Result<Self, InferError> {
        let mut running = StreamMap::new();
        for index in 0..prompts.len() * parameters.n {
            let request = TextRequest {
                prompt: prompts[index / parameters.n].clone(),
                max_tokens: parameters.max_tokens,
                sampling: parameters.sampling(index),
                stop: parameters.stop.clone(),
            };
            let pieces: PieceStream = Box::pin(service.start(request).await?.into_stream());
            running.insert(index, pieces);
        }
        let generated = vec![0; running.len()];
        let prompt = prompts.iter().map(Vec::len).sum();
        let first = running.next().await;
        if let Some((_, Err(error))) = first {
            return Err(error);
        }
        Ok(Self { running, first, generated, prompt })
    }

    /// How many answers there will be.
    pub fn count(&self) -> usize {
        self.generated.len()
    }

    /// The next piece, with the number of its choice; none when all are complete.
    pub async fn next(&mut self) -> Option<Result<(usize, Piece), InferError>> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.running.next().await,
        };
        let (index, piece) = next?;
        Some(piece.map(|piece| {
            self.generated[index] = piece.generated;
            (index, piece)
        }))
    }

    /// Tokens so far.
    pub fn usage(&self) -> Usage {
        Usage { prompt: self.prompt, generated: self.generated.iter().sum() }
    }
}
