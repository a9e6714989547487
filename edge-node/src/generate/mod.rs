//! Continuing a sequence of tokens: head here, tail and the draw of the next token in the cloud.
//!
//! [`SplitGenerator`] checks a request, runs the prompt through the head, opens a stream to the cloud
//! and hands back the tokens as they come; `chain` is the loop behind it. Each token ships the
//! activation of one position. Where the whole model is on the edge, nothing is shipped and the edge
//! draws.

mod chain;
mod command;

use std::{sync::Arc, time::Duration};

use cleave_shared::{
    compute::ComputePool,
    config::Config,
    generate::{Limits, Sampler, SessionError, SessionTable, Share},
    model::ModelSpec,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use self::chain::Chain;
pub use self::command::{Report, generate};
use crate::{
    cloud::CloudClient,
    deploy::Deployment,
    predict::Current,
    serve::{Events, Generation, Generator, InferError},
};

/// Events that wait for a client that reads slowly.
const EVENTS: usize = 4;

/// Continues sequences on whatever is deployed when they begin.
pub struct SplitGenerator {
    shared: Arc<Shared>,
    current: Current,
    sessions: SessionTable,
}

/// What every sequence needs.
struct Shared {
    spec: ModelSpec,
    address: String,
    pool: ComputePool,
    cloud: CloudClient,
    deadline: Duration,
    idle: Duration,
}

impl SplitGenerator {
    pub fn new(config: &Config, current: Current, pool: ComputePool, cloud: CloudClient) -> Self {
        let edge = &config.edge;
        let idle = Duration::from_secs(edge.session_idle_s);
        // An edge does not tell its clients apart.
        let (sessions, bytes, each) = (edge.max_sessions, edge.max_cache_bytes, Share::default());
        let limits = Limits { sessions, bytes, each, idle };
        let shared = Shared {
            spec: config.model.clone(),
            address: edge.cloud.clone(),
            pool,
            cloud,
            deadline: Duration::from_millis(edge.deadline_ms),
            idle,
        };
        Self { shared: Arc::new(shared), current, sessions: SessionTable::new(limits, "edge") }
    }

    /// Sequences that are being continued, and bytes of their caches on this node.
    pub fn in_use(&self) -> (usize, usize) {
        self.sessions.in_use()
    }

    fn deployed(&self) -> Result<Arc<Deployment>, InferError> {
        let deployed = self.current.borrow().clone();
        deployed.ok_or_else(|| {
            let cloud = &self.shared.address;
            InferError::Unavailable(format!(
                "nothing is deployed yet: the cloud at {cloud} has not agreed; try again later"
            ))
        })
    }

    /// The sampler and how many tokens there is room for.
    fn check(&self, request: &Generation) -> Result<(Sampler, usize), InferError> {
        let (spec, positions) = (&self.shared.spec, self.positions());
        let bad = |text: String| Err(InferError::BadInput(text));
        if positions == 0 {
            return bad(format!("the model {} does not generate", spec.family_name()));
        }
        let length = request.prompt.len();
        let allowed = || format!("a prompt of {length} tokens; allowed: 1 to {}", positions - 1);
        if length == 0 {
            return bad(allowed());
        }
        if length >= positions {
            return Err(InferError::TooLong(allowed()));
        }
        let vocabulary = spec.output_shape().last().copied().unwrap_or(0) as i64;
        if let Some(id) = request.prompt.iter().find(|id| !(0..vocabulary).contains(*id)) {
            return bad(format!("token id {id} is not in 0..{vocabulary}"));
        }
        if request.max_tokens == 0 {
            return bad("max_tokens is 0; ask for 1 or more".into());
        }
        let crate::serve::Sampling { temperature, top_k, top_p, seed } = request.sampling;
        let sampler = Sampler { temperature, top_k, top_p, seed };
        sampler.check().map_err(|e| InferError::BadInput(e.to_string()))?;
        Ok((sampler, request.max_tokens.min(positions - length)))
    }
}

impl Generator for SplitGenerator {
    fn positions(&self) -> usize {
        self.shared.spec.positions()
    }

    async fn generate(&self, request: Generation) -> Result<Events, InferError> {
        let (sampler, tokens) = self.check(&request)?;
        let deployed = self.deployed()?;
        // The last token is given out, and not computed on.
        let most = request.prompt.len() + tokens - 1;
        let reserve = self.shared.spec.cache_bytes(0..deployed.target.split, most);
        let id = format!("{:032x}", rand::random::<u128>());
        let lease = self.sessions.open(&id, "", reserve).map_err(session_error)?;
        let begun = Chain::begin(self.shared.clone(), deployed, lease, sampler, most);
        let mut chain = begun.await?;
        // The prompt is computed here, so that what is wrong with the request is this call's error.
        let first = chain.next(request.prompt).await?;
        let (events, outgoing) = mpsc::channel(EVENTS);
        tokio::spawn(chain.run(first, tokens, request.stop, events));
        Ok(Box::pin(ReceiverStream::new(outgoing)))
    }
}

fn session_error(error: SessionError) -> InferError {
    match error {
        SessionError::Taken(_) => InferError::Internal(error.to_string()),
        _ => InferError::Busy(format!("edge: {error}")),
    }
}
