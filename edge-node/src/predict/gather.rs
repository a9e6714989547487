//! Requests of the edge's own clients that wait at the same time share one head and one call to the cloud.
//!
//! Nobody waits for a micro-batch to fill, unless the configuration says so: what has gathered while heads were
//! computed is the micro-batch. A request joins the line and sees to it that a turn is on its way. A turn waits for a
//! slot, of which there are as many as compute threads, and takes whatever is due by then; the last turns find nothing
//! left. It keeps the slot until the head is done and not until the answer is there, so that the next head is computed
//! while this one's activation is on its way.
//!
//! What a micro-batch takes is told to the planner as ever: it compares heads and tails only with those of a request of
//! the same size ([`crate::adapt::HeadRun`]), and transfers by their bytes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cleave_shared::{
    compute::{ComputeError, Estimate},
    deadline::Deadline,
    telemetry::trace,
    wire::{self, NamedTensors},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout_at,
};
use tracing::{Instrument, Span};

use super::{
    SplitPredictor,
    error::{cloud_is_late, compute_error},
    line::{Line, Placed},
    micro_batch::{Cuts, Kind},
};
use crate::{
    deploy::Deployment,
    serve::{InferError, InferRequest, ModelInfo, Prediction, Predictor, Query},
};

type Answer = Result<Prediction, InferError>;

/// Predicts as a [`SplitPredictor`] does, and what waits at the same time together (`edge.micro_batch`).
pub struct Gathered(Arc<Gatherer>);

struct Gatherer {
    split: Arc<SplitPredictor>,
    line: Mutex<Line<Kind, Waiting>>,
    /// One for each head that is computed at the same time.
    slots: Arc<Semaphore>,
    /// Samples of one micro-batch.
    most: usize,
    delay: Duration,
    /// What a head takes.
    usual: Estimate,
    cuts: Cuts,
}

/// A request in line.
struct Waiting {
    inputs: NamedTensors,
    samples: usize,
    /// As in [`InferRequest`].
    exits: bool,
    /// When its client stops waiting, if it says so.
    client: Option<Deadline>,
    /// When the cloud's answer is due.
    due: Deadline,
    /// When it is refused, wherever it is. Where the whole model here can answer, late is better than not at all, and
    /// only its client says when.
    until: Option<Deadline>,
    /// By when its head has to be done.
    head_by: Option<Deadline>,
    since: Instant,
    /// Whether there was no slot when it came.
    behind: bool,
    reply: oneshot::Sender<Answer>,
    /// Where it is in its trace and in the log.
    parent: trace::Parent,
    span: Span,
}

impl Gathered {
    pub fn new(split: Arc<SplitPredictor>) -> Self {
        // There from the start, so that the first micro-batch is a rate.
        micro_batched().increment(0);
        let edge = &split.config.edge;
        Self(Arc::new(Gatherer {
            line: Mutex::new(Line::new(edge.queue)),
            slots: Arc::new(Semaphore::new(edge.threads)),
            most: edge.micro_batch,
            delay: edge.micro_batch_delay(),
            usual: Estimate::default(),
            cuts: Cuts::of(&split.config.model),
            split,
        }))
    }
}

fn micro_batched() -> metrics::Counter {
    metrics::counter!("cleave_micro_batched_requests_total")
}

impl Predictor for Gathered {
    fn model(&self) -> ModelInfo {
        self.0.split.model()
    }

    fn ready(&self) -> bool {
        self.0.split.ready()
    }

    async fn predict(&self, request: InferRequest) -> Answer {
        let gatherer = &self.0;
        let Some((kind, waiting, mut answer)) = gatherer.waiting(&request) else {
            return gatherer.split.predict(request).await;
        };
        let until = waiting.until;
        let place = gatherer.enter(kind, waiting)?;
        let Some(until) = until else { return answered(answer.await) };
        match timeout_at(until.instant().into(), &mut answer).await {
            Ok(answer) => answered(answer),
            Err(_) if place.give_up() => Err(no_slot()),
            Err(_) => {
                // Somebody waits for the call as long as it is given time: that it failed then is what the circuit
                // breaker and the planner have to hear.
                tokio::spawn(answer);
                Err(cloud_is_late(&gatherer.split.config.edge.cloud))
            }
        }
    }
}

fn answered(answer: Result<Answer, oneshot::error::RecvError>) -> Answer {
    // A panic took the sender with it.
    answer.unwrap_or_else(|_| {
        Err(InferError::Internal("the prediction broke off; see the edge's log".into()))
    })
}

fn no_slot() -> InferError {
    InferError::Deadline(
        "its head was not begun within edge.deadline_ms or the client's deadline; retry later"
            .into(),
    )
}

impl Gatherer {
    /// This request as it waits in line, and where its answer comes; none if it goes by itself.
    fn waiting(
        &self,
        request: &InferRequest,
    ) -> Option<(Kind, Waiting, oneshot::Receiver<Answer>)> {
        let Query::Tensors(inputs) = &request.query else { return None };
        if self.most == 1 {
            return None;
        }
        let (samples, kind) = Kind::of(inputs)?;
        let deployed = self.split.current.borrow().clone()?;
        let exits = request.exits && !deployed.exits.is_empty();
        if exits || !(1..self.most).contains(&samples) || !self.may_join(&deployed) {
            return None;
        }
        let (client, due) = (request.deadline, self.split.due());
        let by = client.map_or(due, |client| client.min(due));
        let here = deployed.is_whole() || self.split.spare(&deployed).is_some();
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting {
            inputs: inputs.clone(),
            samples,
            exits: request.exits,
            client,
            due,
            until: if here { client } else { Some(by) },
            head_by: self.split.head_by(&deployed, Some(by)),
            since: Instant::now(),
            behind: self.slots.available_permits() == 0,
            reply,
            parent: trace::Parent::current(),
            span: Span::current(),
        };
        Some((kind, waiting, answer))
    }

    /// Whether a request gets the same activation across in a micro-batch as alone, but for last bits.
    fn may_join(&self, deployed: &Deployment) -> bool {
        deployed.is_whole() || self.cuts.keep_apart(deployed.target.split, deployed.codec.name())
    }

    /// Lets a request wait for its turn.
    fn enter(self: &Arc<Self>, kind: Kind, waiting: Waiting) -> Result<Place, InferError> {
        let queue = self.split.config.edge.queue;
        let placed = locked(&self.line).push(kind, waiting.samples, waiting);
        let Some(Placed { ticket, needs_turn }) = placed else {
            return Err(compute_error(ComputeError::Busy { queue }));
        };
        if needs_turn {
            tokio::spawn(self.clone().turn());
        }
        Ok(Place { gatherer: self.clone(), ticket })
    }

    async fn turn(self: Arc<Self>) {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let Some(slot) = self.slot().await else { return };
        let due = self.take();
        for one in self.answer(due, slot).await {
            tokio::spawn(self.clone().turn_of(one));
        }
    }

    /// That of one whose micro-batch has failed.
    async fn turn_of(self: Arc<Self>, one: Waiting) {
        if let Some(slot) = self.slot().await {
            self.answer(vec![one], slot).await;
        }
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Those whose turn it is, but for those that nobody waits for and those that are too late.
    fn take(&self) -> Vec<Waiting> {
        let taken = locked(&self.line).take(self.most);
        let usual = self.usual.upper();
        taken.into_iter().filter_map(|one| one.in_time(usual)).collect()
    }

    /// Answers these together; gives them back if each has to be tried alone, since one of them may be at fault.
    async fn answer(&self, mut batch: Vec<Waiting>, slot: OwnedSemaphorePermit) -> Vec<Waiting> {
        let Some(first) = batch.first() else { return batch };
        let (parent, span) = (first.parent.clone(), first.span.clone());
        // As long as an answer is of use for any of them; others are refused before.
        let due = batch.iter().fold(first.due, |due, one| due.max(one.due));
        let deployed = match self.split.deployed() {
            Ok(deployed) => deployed,
            Err(error) => return give(batch, Err(error)),
        };
        if batch.len() > 1 && !self.may_join(&deployed) {
            return batch;
        }
        let Some(request) = together(&batch) else { return batch };
        let (computed, head) = oneshot::channel();
        let begin = Instant::now();
        let predicted = self.split.predict_by(due, deployed, request, Some(computed));
        let held = async {
            if head.await.is_ok() {
                self.usual.observe(begin.elapsed());
            }
            drop(slot);
        };
        // The cloud finds the trace of the first of them.
        let predicted = parent.adopt(async { tokio::join!(predicted, held).0 }).instrument(span);
        let outcome = tokio::select! {
            outcome = predicted => outcome,
            () = all_gone(&mut batch) => return Vec::new(),
        };
        give(batch, outcome)
    }
}

impl Waiting {
    /// The same if its head can be done in time, which usually takes so long; else it is refused.
    fn in_time(self, usual: Duration) -> Option<Self> {
        let is_late =
            |by: Option<Deadline>, takes: Duration| by.is_some_and(|by| by.left() <= takes);
        let error = if self.reply.is_closed() {
            return None;
        } else if is_late(self.until, Duration::ZERO) {
            no_slot()
        } else if self.behind && is_late(self.head_by, usual) {
            let waited_ms = self.since.elapsed().as_millis() as u64;
            compute_error(ComputeError::Late { waited_ms })
        } else {
            return Some(self);
        };
        let _ = self.reply.send(Err(error));
        None
    }
}

/// What all of them ask for. What is alone is asked for as it came.
fn together(batch: &[Waiting]) -> Option<InferRequest> {
    let (inputs, exits) = match batch {
        [one] => (one.inputs.clone(), one.exits),
        // Exits could answer none of them when they came.
        _ => (wire::join(&batch.iter().map(|one| &one.inputs).collect::<Vec<_>>())?, false),
    };
    let clients: Option<Vec<Deadline>> = batch.iter().map(|one| one.client).collect();
    let deadline = clients.and_then(|clients| clients.into_iter().max());
    Some(InferRequest { query: Query::Tensors(inputs), exits, deadline })
}

/// Gives each its part of the outcome; gives them back if it may be the fault of one of them.
fn give(batch: Vec<Waiting>, outcome: Answer) -> Vec<Waiting> {
    let samples: Vec<usize> = batch.iter().map(|one| one.samples).collect();
    let answers: Vec<Answer> = match outcome {
        Err(error) if batch.len() > 1 && may_be_of_one(&error) => return batch,
        Err(error) => vec![Err(error); batch.len()],
        Ok(prediction) => match parts(prediction, &samples) {
            Some(parts) => parts.into_iter().map(Ok).collect(),
            None => return batch,
        },
    };
    if batch.len() > 1 && answers.iter().all(Result::is_ok) {
        micro_batched().increment(batch.len() as u64);
    }
    for (one, answer) in batch.into_iter().zip(answers) {
        let _ = one.reply.send(answer);
    }
    Vec::new()
}

/// The load, the cloud and the link are nobody's fault.
fn may_be_of_one(error: &InferError) -> bool {
    !matches!(error, InferError::Busy(_) | InferError::Unavailable(_) | InferError::Deadline(_))
}

/// The answers to requests of so many samples each. The times of a micro-batch are those of each request in it.
fn parts(prediction: Prediction, samples: &[usize]) -> Option<Vec<Prediction>> {
    if samples.len() == 1 {
        return Some(vec![prediction]);
    }
    let Prediction { outputs, timing, split_point, .. } = prediction;
    let outputs = wire::apart(&outputs, samples)?;
    let one = |outputs| Prediction { outputs, timing, split_point, exits: None };
    Some(outputs.into_iter().map(one).collect())
}

/// Ends when nobody waits for any of them any more.
async fn all_gone(batch: &mut [Waiting]) {
    for one in batch {
        one.reply.closed().await;
    }
}

/// A place in line, which is left when its request is given up.
struct Place {
    gatherer: Arc<Gatherer>,
    ticket: u64,
}

impl Place {
    /// Whether it was still there.
    fn give_up(&self) -> bool {
        locked(&self.gatherer.line).remove(self.ticket).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
