//! One edge's tail in training: its weights, its optimiser, and how far it is.

use std::time::Instant;

use cleave_shared::{
    checkpoint::{RunStore, TrainingRun},
    model::{Segment, Side},
    session::{Admission, Holdings, Ledger, Source, TrainingSpec, agree},
    tensor::HostTensor,
    wire::{NamedTensors, v1},
};
use tonic::Status;

use super::{Shared, run_file::RunFile};
use crate::{
    inference::ms_since,
    service::{blocking, compute_status, model_status},
    weights::{library_status, store_status},
};

/// The state of a run after `ledger.live()` steps.
pub struct Run {
    half: TrainingRun,
    /// Taken by the compute thread during a step; gone for good if that thread panicked.
    tail: Option<Segment>,
    ledger: Ledger<v1::TrainStepped>,
    /// Number of the stream that opened it last; an older one has lost the run.
    owner: u64,
}

/// A decoded step.
pub struct Step {
    pub id: u64,
    pub activation: NamedTensors,
    pub labels: HostTensor,
    pub want_gradient: bool,
}

/// Opens or resumes the run in `held`; gives the step that both sides continue from. A refusal
/// leaves the run as it was.
pub async fn open(
    held: &mut Option<Run>,
    open: v1::TrainOpen,
    owner: u64,
    shared: &Shared,
) -> Result<u64, Status> {
    let cut = shared.handshake.check(open.agreement.as_ref())?;
    let agreement = open.agreement.unwrap_or_default();
    let training = TrainingSpec::parse(&open.training).map_err(Status::invalid_argument)?;
    let asked = RunFile {
        spec_hash: agreement.spec_hash,
        split_point: cut.split,
        weights: agreement.weights.clone(),
        training: training.canonical(),
    };
    let edge = Holdings {
        live: open.live_step,
        can_replay: false,
        checkpoints: open.checkpoints.into_iter().collect(),
    };
    let memory = held.as_ref().and_then(Run::holdings);
    let half = TrainingRun {
        library: shared.library.clone(),
        id: open.run,
        start: cut.weights,
        training,
        side: Side::Cloud,
        range: cut.split..shared.spec.stage_count(),
    };
    let tails = shared.tails.clone();
    let (restored, step) = blocking(move || {
        let (store, id) = (half.library.store(), &half.id);
        check_identity(store, id, &asked)?;
        let cloud = Holdings { checkpoints: store.steps(id), ..memory.clone().unwrap_or_default() };
        let resume = agree(&edge, &cloud);
        if resume.cloud == Source::Live && memory.is_some() {
            return Ok((None, resume.step));
        }
        store.drop_after(id, resume.step).map_err(store_status)?;
        tails.forget(id);
        let tail = half.restore(resume.step).map_err(library_status)?;
        let ledger = Ledger::at(resume.step);
        Ok((Some(Run { half, tail: Some(tail), ledger, owner }), resume.step))
    })
    .await?;
    if restored.is_some() {
        *held = restored;
    }
    if let Some(run) = held {
        run.owner = owner;
    }
    Ok(step)
}

/// Refuses to continue a run as something else than it was.
fn check_identity(store: &RunStore, id: &str, asked: &RunFile) -> Result<(), Status> {
    match RunFile::read(store, id).map_err(store_status)? {
        None => asked.write(store, id).map_err(store_status),
        Some(file) => {
            let lines = file.differences(asked);
            if lines.is_empty() {
                return Ok(());
            }
            let lines = lines.join("; ");
            Err(Status::failed_precondition(format!("run {id} exists and differs: {lines}")))
        }
    }
}

impl Run {
    /// What it holds in memory: nothing if a step took the tail with it when it failed.
    fn holdings(&self) -> Option<Holdings> {
        self.tail.as_ref()?;
        let (live, can_replay) = (self.ledger.live(), self.ledger.can_replay());
        Some(Holdings { live, can_replay, ..Holdings::default() })
    }

    /// Whether this stream opened it last.
    pub fn belongs_to(&self, stream: u64) -> bool {
        self.owner == stream
    }

    /// Applies a step, or gives the reply again if it was applied before.
    pub async fn step(&mut self, step: Step, shared: &Shared) -> Result<v1::TrainStepped, Status> {
        match self.ledger.admit(step.id) {
            Err(e) => return Err(Status::failed_precondition(e.to_string())),
            Ok(Admission::Replay(reply)) => return Ok(reply.clone()),
            Ok(Admission::Apply) => {}
        }
        let mut tail = self.take_tail()?;
        let TrainingSpec { loss, optimizer, .. } = self.half.training.clone();
        let codec = shared.gradient_codec;
        let job = move || {
            let begin = Instant::now();
            let Step { id, activation, labels, want_gradient } = step;
            let done = tail.tail_step(&activation, &labels, loss, &optimizer, want_gradient);
            let tail_ms = ms_since(begin);
            let reply = done.map(|done| v1::TrainStepped {
                id,
                loss: done.loss,
                correct: done.correct,
                gradient: cleave_shared::wire::encode(done.gradient, codec),
                tail_ms,
            });
            (tail, reply)
        };
        // Patiently: a refused job would take the tail's weights with it.
        let (tail, reply) = shared.pool.run_patiently(job).await.map_err(compute_status)?;
        self.tail = Some(tail);
        // A refused step changed nothing: losses are computed before any weight is touched.
        Ok(self.ledger.commit(reply.map_err(model_status)?).clone())
    }

    /// Loss and right answers on a batch, without an update.
    pub async fn evaluate(
        &mut self,
        activation: NamedTensors,
        labels: HostTensor,
        shared: &Shared,
    ) -> Result<v1::TrainEvaluated, Status> {
        let tail = self.take_tail()?;
        let loss = self.half.training.loss;
        let job = move || {
            let done = tail.tail_evaluate(&activation, &labels, loss);
            (tail, done)
        };
        let (tail, done) = shared.pool.run_patiently(job).await.map_err(compute_status)?;
        self.tail = Some(tail);
        let (loss, correct) = done.map_err(model_status)?;
        Ok(v1::TrainEvaluated { loss, correct })
    }

    /// Writes this half of step `id`, which must be the one the run is at.
    pub async fn checkpoint(&mut self, id: u64, shared: &Shared) -> Result<(), Status> {
        let live = self.ledger.live();
        if id != live {
            let text = format!("checkpoint of step {id}, but the run is at step {live}");
            return Err(Status::failed_precondition(text));
        }
        let tail = self.tail.as_ref().ok_or_else(broken)?;
        let state = tail.state().map_err(model_status)?;
        let (half, keep) = (self.half.clone(), shared.keep_checkpoints);
        blocking(move || half.write(id, &state, keep).map_err(store_status)).await
    }

    fn take_tail(&mut self) -> Result<Segment, Status> {
        self.tail.take().ok_or_else(broken)
    }
}

fn broken() -> Status {
    Status::aborted("a step of this run failed; open the run again")
}
