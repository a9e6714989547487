//! One sequence: token → head → link → tail → token, until it ends.

use std::sync::Arc;

use cleave_shared::{
    codec::SharedCodec,
    compute::ComputePool,
    data::INPUT,
    generate::{Choice, GenerateError, Lease, Sampler, Sequence, Tail},
    model::ModelError,
    tensor::HostTensor,
    wire::{
        self,
        v1::{self, generate_request::Kind},
    },
};
use tokio::{
    sync::mpsc,
    time::{timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use crate::{
    deploy::Deployment,
    predict::{compute_error, status_error},
    serve::{Event, Finish, InferError},
};

/// Messages that wait for the network: `open`, and the first of a step's chunks.
const REQUESTS: usize = 4;

type Events = mpsc::Sender<Result<Event, InferError>>;

/// A sequence that is being continued. Dropping it frees its caches on both nodes.
pub struct Chain {
    shared: Arc<Shared>,
    lease: Lease,
    rest: Rest,
}

/// Who draws the next token.
enum Rest {
    /// The whole model is here; taken while it computes.
    Here(Option<Tail>),
    Cloud(Box<Remote>),
}

/// A head here, and the stream to its tail.
struct Remote {
    /// Taken while it computes.
    head: Option<Sequence>,
    codec: SharedCodec,
    requests: mpsc::Sender<v1::GenerateRequest>,
    link: Link,
}

/// The stream to the cloud.
enum Link {
    /// `open` and the first step are sent together, and the answer to both is awaited once.
    Unopened(mpsc::Receiver<v1::GenerateRequest>),
    Open(Box<tonic::Streaming<v1::GenerateReply>>),
}

impl Chain {
    /// Nothing is computed yet.
    pub async fn begin(
        shared: Arc<Shared>,
        deployed: Arc<Deployment>,
        lease: Lease,
        sampler: Sampler,
        most: usize,
    ) -> Result<Self, InferError> {
        let sequence = Sequence::new(deployed.head.clone(), most);
        if deployed.is_whole() {
            let rest = Rest::Here(Some(Tail::new(sequence, sampler)));
            return Ok(Self { shared, lease, rest });
        }
        let Sampler { temperature, top_k, top_p, seed } = sampler;
        let top_k = u32::try_from(top_k).unwrap_or(u32::MAX);
        let open = v1::GenerateOpen {
            agreement: Some(deployed.agreement.clone()),
            session: lease.id().into(),
            max_positions: most as u32,
            sampling: Some(v1::Sampling { temperature, top_k, top_p, seed }),
        };
        let (requests, waiting) = mpsc::channel(REQUESTS);
        let _ = requests.send(v1::GenerateRequest { kind: Some(Kind::Open(open)) }).await;
        let (head, link) = (Some(sequence), Link::Unopened(waiting));
        let codec = deployed.codec.clone();
        let rest = Rest::Cloud(Box::new(Remote { head, codec, requests, link }));
        Ok(Self { shared, lease, rest })
    }

    /// The token that follows these and all before them.
    pub async fn next(&mut self, ids: Vec<i64>) -> Result<Choice, InferError> {
        let ids = HostTensor::from_i64(vec![1, ids.len()], &ids);
        let input = vec![(INPUT.to_string(), ids)];
        let pool = &self.shared.pool;
        let (choice, used) = match &mut self.rest {
            Rest::Here(tail) => {
                compute(pool, tail, move |tail| {
                    let choice = tail.next(&input).map_err(generate_error)?;
                    Ok((choice, tail.cache_bytes()))
                })
                .await?
            }
            Rest::Cloud(remote) => {
                let Remote { head, codec, requests, link } = remote.as_mut();
                let (activation, used) = compute(pool, head, move |head| {
                    let output = head.extend(&input).map_err(model_error)?;
                    Ok((output, head.cache_bytes()))
                })
                .await?;
                let activation = wire::encode(activation, codec.as_ref());
                (ship(&self.shared, activation, requests, link).await?, used)
            }
        };
        self.lease.touch(used);
        Ok(choice)
    }

    /// Gives out `first` and what follows it, up to `tokens` of them, none of which is in `stop`.
    pub async fn run(mut self, first: Choice, tokens: usize, stop: Vec<i64>, events: Events) {
        let outcome = tokio::select! {
            outcome = self.give_out(first, tokens, &stop, &events) => outcome,
            // The client has gone.
            () = events.closed() => return,
        };
        let idle = self.shared.idle;
        // The caches are free before the client learns of the end.
        drop(self);
        let last = outcome.map(Event::End);
        let _ = timeout(idle, events.send(last)).await;
    }

    async fn give_out(
        &mut self,
        first: Choice,
        tokens: usize,
        stop: &[i64],
        events: &Events,
    ) -> Result<Finish, InferError> {
        let mut choice = first;
        for left in (0..tokens).rev() {
            let id = choice.id as i64;
            if stop.contains(&id) {
                return Ok(Finish::Stop);
            }
            let event = Event::Token { id, logprob: choice.logprob };
            let read = timeout_at(self.lease.expires().into(), events.send(Ok(event))).await;
            if read.is_err() {
                let text = "the tokens were not read within edge.session_idle_s";
                return Err(InferError::Deadline(text.into()));
            }
            if left > 0 {
                choice = self.next(vec![id]).await?;
            }
        }
        Ok(Finish::Length)
    }
}

/// Runs a step of a half that is taken out of its place meanwhile, on a compute thread.
async fn compute<H: Send + 'static, T: Send + 'static>(
    pool: &ComputePool,
    place: &mut Option<H>,
    step: impl FnOnce(&mut H) -> Result<T, InferError> + Send + 'static,
) -> Result<T, InferError> {
    let gone = || InferError::Internal("the sequence has failed before".into());
    let mut half = place.take().ok_or_else(gone)?;
    let job = move || {
        let outcome = step(&mut half);
        (half, outcome)
    };
    // Sequences are few, and each has one step under way: it waits rather than lose its caches.
    let (half, outcome) = pool.run_patiently(job).await.map_err(compute_error)?;
    let outcome = outcome?;
    *place = Some(half);
    Ok(outcome)
}

/// Sends the new positions, and waits for the token.
async fn ship(
    shared: &Shared,
    activation: Vec<v1::Tensor>,
    requests: &mpsc::Sender<v1::GenerateRequest>,
    link: &mut Link,
) -> Result<Choice, InferError> {
    let step = v1::GenerateStep { activation };
    let parts = wire::send(step, |s| v1::GenerateRequest { kind: Some(Kind::Step(s)) });
    let exchange = async {
        let sending = async {
            for part in parts {
                // The receiver is gone when the stream has failed, which the answer tells.
                let _ = requests.send(part).await;
            }
        };
        let (_, reply) = tokio::join!(sending, answer(shared, link));
        reply
    };
    let late = |_| {
        let address = &shared.address;
        let text = format!("the cloud at {address} did not answer within edge.deadline_ms");
        InferError::Deadline(text)
    };
    let reply = timeout(shared.deadline, exchange).await.map_err(late)??;
    let id = usize::try_from(reply.token)
        .map_err(|_| InferError::Internal(format!("the cloud drew token {}", reply.token)))?;
    Ok(Choice { id, logprob: reply.logprob })
}

async fn answer(shared: &Shared, link: &mut Link) -> Result<v1::GenerateReply, InferError> {
    let fail = |status: tonic::Status| status_error(&shared.address, &status);
    if let Link::Unopened(waiting) = link {
        // Replaced, so that dropping the chain closes the stream's own receiver.
        let waiting = std::mem::replace(waiting, mpsc::channel(1).1);
        let replies = shared.cloud.generate(ReceiverStream::new(waiting)).await.map_err(fail)?;
        *link = Link::Open(Box::new(replies));
    }
    let Link::Open(replies) = link else {
        return Err(InferError::Internal("the stream was not opened".into()));
    };
    match replies.message().await.map_err(fail)? {
        Some(reply) => Ok(reply),
        None => Err(InferError::Unavailable(format!(
            "the cloud at {} ended the sequence; try again",
            shared.address
        ))),
    }
}

fn model_error(error: ModelError) -> InferError {
    InferError::Internal(error.to_string())
}

fn generate_error(error: GenerateError) -> InferError {
    InferError::Internal(error.to_string())
}
