//! A generator for tests: ids that depend on the prompt, the seed and the position only.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::stream;

use super::{Event, Events, Finish, Generation, Generator, InferError};

/// What a prompt fails with.
type Failure = fn(String) -> InferError;

/// Prompts that begin with one of these ids fail: before the first token, the last one after two.
pub const FAILURES: [(i64, Failure); 4] = [
    (390, InferError::Busy),
    (391, InferError::Unavailable),
    (392, InferError::Deadline),
    (393, InferError::Unavailable),
];
const FAILS_LATE: i64 = 393;

#[derive(Default)]
pub struct FakeGenerator {
    pub positions: usize,
    /// The ids that it draws from.
    pub ids: Range<i64>,
    /// How long a token takes, ms.
    pub token_ms: u64,
    /// Generations that are neither complete nor dropped.
    pub alive: Arc<AtomicUsize>,
}

/// Counts one generation as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeGenerator {
    fn failure(request: &Generation, done: usize) -> Option<InferError> {
        let first = *request.prompt.first()?;
        let late = usize::from(first == FAILS_LATE) * 2;
        let (_, failure) = FAILURES.iter().find(|(id, _)| *id == first && done == late)?;
        Some(failure(format!("prompt {first} fails")))
    }
}

impl Generator for FakeGenerator {
    fn positions(&self) -> usize {
        self.positions
    }

    async fn generate(&self, request: Generation) -> Result<Events, InferError> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(self.alive.clone());
        if let Some(failure) = Self::failure(&request, 0) {
            return Err(failure);
        }
        let (first, count, token_ms) =
            (self.ids.start, (self.ids.end - self.ids.start) as u64, self.token_ms);
        let drawn = request.sampling.temperature > 0.0;
        let seed = if drawn { request.sampling.seed } else { 0 };
        let state = request.prompt.iter().fold(seed, |sum, &id| mixed(sum ^ id as u64));
        let begin = Some((request, state, 0, alive));
        Ok(Box::pin(stream::unfold(begin, move |step| async move {
            let (request, state, done, alive) = step?;
            if done == request.max_tokens {
                return Some((Ok(Event::End(Finish::Length)), None));
            }
            tokio::time::sleep(std::time::Duration::from_millis(token_ms)).await;
            if let Some(failure) = Self::failure(&request, done) {
                return Some((Err(failure), None));
            }
            let id = first + (mixed(state) % count) as i64;
            if request.stop.contains(&id) {
                return Some((Ok(Event::End(Finish::Stop)), None));
            }
            let token = Event::Token { id, logprob: -(id as f32) / 16.0 };
            Some((Ok(token), Some((request, mixed(state), done + 1, alive))))
        })))
    }
}

/// SplitMix64.
fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
