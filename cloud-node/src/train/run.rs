//! One edge's tail in training: its weights, its optimiser, and how far it is.

use std::{collections::HashMap, time::Instant};

use cleave_shared::{
    checkpoint::TrainingRun,
    codec::{LeftOut, Sender, SharedCodec, of_what_was_sent},
    model::{ForwardPass, LossPass, ModelError, Segment, Side, StageState, Update},
    session::{Commitment, Holdings, Ledger, OutOfOrder, Source, TrainingSpec, agree},
    tensor::HostTensor,
    wire::{self, NamedTensors, v1},
};
use tonic::Status;

use super::{
    Shared,
    incoming::{Codecs, MicroBatch},
    run_file::RunFile,
};
use crate::{
    inference::ms_since,
    service::{blocking, compute_status, model_status},
    weights::{library_status, store_status},
};

/// The state of a run after `ledger.live()` steps.
pub struct Run {
    half: TrainingRun,
    /// Taken by the compute thread during a step; gone for good if that thread panicked.
    own: Option<Own>,
    ledger: Ledger,
    /// The step whose state was read from the disk or written to it last.
    kept: u64,
    /// Micro-batches of the step that is being prepared which are at the edge's last stages, by number.
    passes: HashMap<u32, Waiting>,
    /// Number of the stream that opened it last; an older one has lost the run.
    owner: u64,
}

/// This node's stages, and how what they make is sent.
struct Own {
    tail: Segment,
    activation_codec: SharedCodec,
    gradients: Sender,
}

/// A forward pass whose gradient the edge has yet to send.
struct Waiting {
    step: u64,
    /// Micro-batches of the step.
    count: u32,
    pass: ForwardPass,
    /// What came from the edge, if that was a part of its activation.
    sent: Option<NamedTensors>,
}

/// Opens or resumes the run in `held`; gives the step that both sides continue from, and how the edge
/// encodes what it sends. A refusal leaves the run as it was.
pub async fn open(
    held: &mut Option<Run>,
    open: v1::TrainOpen,
    owner: u64,
    shared: &Shared,
) -> Result<(u64, Codecs), Status> {
    let agreed = shared.handshake.check(open.agreement.as_ref()).await?;
    let cut = agreed.cut;
    let (activation, gradient) = (agreed.activation_codec, agreed.gradient_codec);
    let codecs = Codecs { activation: activation.clone(), gradient: gradient.clone() };
    let agreement = open.agreement.unwrap_or_default();
    let training = TrainingSpec::parse(&open.training).map_err(Status::invalid_argument)?;
    let last_split = open.last_split.map(|last| last as usize);
    let end = last_split.unwrap_or(shared.spec.stage_count());
    if last_split.is_some_and(|last| !(cut.split + 1..shared.spec.stage_count()).contains(&last)) {
        let text = format!("last_split {end} leaves the cloud or the edge no stages");
        return Err(Status::invalid_argument(text));
    }
    let asked = RunFile {
        last_split,
        spec_hash: agreement.spec_hash,
        split_point: cut.split,
        weights: agreement.weights.clone(),
        training: training.canonical(),
        activation_codec: activation.name().into(),
        gradient_codec: gradient.name().into(),
    };
    let commit = open.commit.filter(|commit| commit.id == open.live_step);
    let edge = Holdings {
        live: open.live_step,
        pending: commit.is_some(),
        checkpoints: open.checkpoints.into_iter().collect(),
    };
    let memory = held.as_ref().and_then(Run::holdings);
    let half = TrainingRun {
        library: shared.library.clone(),
        id: open.run,
        start: cut.weights,
        training,
        side: Side::Cloud,
        range: cut.split..end,
    };
    let tails = shared.tails.clone();
    let (restored, resume) = blocking(move || {
        let (store, id) = (half.library.store(), &half.id);
        asked.claim(store, id)?;
        let cloud = Holdings { checkpoints: store.steps(id), ..memory.clone().unwrap_or_default() };
        let resume = agree(&edge, &cloud);
        if matches!(resume.cloud, Source::Live | Source::Commit) && memory.is_some() {
            return Ok((None, resume));
        }
        store.drop_after(id, resume.step).map_err(store_status)?;
        tails.forget(id);
        let tail = half.restore(resume.step).map_err(library_status)?;
        let left_out = half.left_out(resume.step).map_err(library_status)?;
        let gradients = Sender::new(gradient, left_out);
        let own = Some(Own { tail, activation_codec: activation, gradients });
        let (ledger, kept) = (Ledger::at(resume.step), resume.step);
        let passes = HashMap::new();
        Ok((Some(Run { half, own, ledger, kept, passes, owner }), resume))
    })
    .await?;
    if restored.is_some() {
        *held = restored;
    }
    if let Some(run) = held {
        run.owner = owner;
        if let (Source::Commit, Some(commit)) = (resume.cloud, commit) {
            run.commit(commit, shared).await?;
        }
    }
    Ok((resume.step, codecs))
}

impl Run {
    /// What it holds in memory: nothing if a step took the tail with it when it failed.
    fn holdings(&self) -> Option<Holdings> {
        self.own.as_ref()?;
        let (live, pending) = (self.ledger.live(), self.ledger.is_prepared());
        Some(Holdings { live, pending, ..Holdings::default() })
    }

    /// Whether this stream opened it last.
    pub fn belongs_to(&self, stream: u64) -> bool {
        self.owner == stream
    }

    /// Takes a micro-batch up to the edge's last stages, where its labels are.
    pub async fn forward(
        &mut self,
        micro: MicroBatch,
        shared: &Shared,
    ) -> Result<v1::TrainForwarded, Status> {
        let MicroBatch { id, index, count, activation, want_gradient, .. } = micro;
        let expected = self.ledger.live() + 1;
        if id != expected {
            return Err(disorder(OutOfOrder::Step { expected, found: id }));
        }
        let first = index == 0;
        if first {
            self.passes.clear();
            self.ledger.forget();
        }
        let begin = Instant::now();
        let job = move |own: &mut Own| {
            if first {
                own.forget();
            }
            let (output, pass) = own.tail.forward(&activation, want_gradient)?;
            let sent = own.activation_codec.is_sparse().then_some(activation);
            Ok((wire::encode(output, own.activation_codec.as_ref()), pass, sent))
        };
        let (activation, pass, sent) = self.compute(shared, job).await?.map_err(model_status)?;
        self.passes.insert(index, Waiting { step: id, count, pass, sent });
        Ok(v1::TrainForwarded { id, micro_batch: index, activation, tail_ms: ms_since(begin) })
    }

    /// Takes the gradient of the edge's last stages back through a micro-batch.
    pub async fn backward(
        &mut self,
        id: u64,
        index: u32,
        gradient: NamedTensors,
        shared: &Shared,
    ) -> Result<v1::TrainPrepared, Status> {
        let waiting = self.passes.remove(&index).filter(|waiting| waiting.step == id);
        let Waiting { count, pass, sent, .. } = waiting.ok_or_else(|| {
            Status::aborted(format!(
                "a gradient of micro-batch {index} of step {id}, which is not here"
            ))
        })?;
        let place = self.ledger.prepare(id, index, count).map_err(disorder)?;
        let received_ns = shared.clock.now_ns();
        let job = move |own: &mut Own| {
            let mut gradient = own.tail.backward(pass, &gradient)?;
            if let Some(sent) = sent {
                gradient = of_what_was_sent(gradient, &sent);
            }
            // Loss and right answers are the edge's to know.
            Ok(LossPass { loss: 0.0, correct: 0, gradient })
        };
        self.add_up(id, index, place.last, received_ns, job, shared).await
    }

    /// Adds up the gradients of a micro-batch; gives its loss and the gradient at the cut.
    pub async fn prepare(
        &mut self,
        micro: MicroBatch,
        labels: HostTensor,
        shared: &Shared,
    ) -> Result<v1::TrainPrepared, Status> {
        let place = self.ledger.prepare(micro.id, micro.index, micro.count).map_err(disorder)?;
        let loss = self.half.training.loss;
        let MicroBatch { id, index, share, activation, want_gradient, received_ns, .. } = micro;
        let job = move |own: &mut Own| {
            if place.first {
                own.forget();
            }
            let mut done = own.tail.loss_pass(&activation, &labels, loss, share, want_gradient)?;
            if own.activation_codec.is_sparse() {
                done.gradient = of_what_was_sent(done.gradient, &activation);
            }
            Ok(done)
        };
        self.add_up(id, index, place.last, received_ns, job, shared).await
    }

    /// Has the tail add up the gradients of a micro-batch, with `last` the step's last one, and makes of it
    /// what is answered.
    async fn add_up(
        &mut self,
        id: u64,
        index: u32,
        last: bool,
        received_ns: u64,
        pass: impl FnOnce(&mut Own) -> Result<LossPass, ModelError> + Send + 'static,
        shared: &Shared,
    ) -> Result<v1::TrainPrepared, Status> {
        let wants_square = last && self.half.training.clip_norm.is_some();
        let clock = shared.clock.clone();
        let job = move |own: &mut Own| {
            let begun_ns = clock.now_ns();
            let LossPass { loss, correct, gradient } = pass(own)?;
            let ended_ns = clock.now_ns();
            let encode = |name: &str, tensor| own.gradients.encode(name, tensor, id, index);
            Ok(v1::TrainPrepared {
                id,
                micro_batch: index,
                loss,
                correct,
                gradient: wire::encode_with(gradient, encode),
                gradient_square: if wants_square { own.tail.gradient_square() } else { 0.0 },
                tail_ms: (ended_ns - begun_ns) as f64 / 1e6,
                received_ns,
                begun_ns,
                ended_ns,
                sent_ns: clock.now_ns(),
                instance: clock.instance,
            })
        };
        let reply = self.compute(shared, job).await?;
        reply.map_err(|error| {
            self.ledger.forget();
            model_status(error)
        })
    }

    /// Applies the step that is prepared, once.
    pub async fn commit(&mut self, commit: v1::TrainCommit, shared: &Shared) -> Result<(), Status> {
        let v1::TrainCommit { id, learning_rate, scale } = commit;
        if ![learning_rate, scale].iter().all(|v| v.is_finite() && *v >= 0.0) {
            let text = format!("step {id}: learning rate {learning_rate}, scale {scale}");
            return Err(Status::invalid_argument(text));
        }
        // First: a ledger that has committed while its tail is gone must not be continued.
        self.own.as_ref().ok_or_else(broken)?;
        match self.ledger.commit(id).map_err(disorder)? {
            Commitment::Apply => {}
            Commitment::Done => return Ok(()),
        }
        let optimizer = self.half.training.optimizer.clone();
        let update = Update { learning_rate, scale };
        let job = move |own: &mut Own| {
            own.tail.commit(&optimizer, update);
            own.gradients.commit();
        };
        self.compute(shared, job).await
    }

    /// Loss and right answers on a batch, without an update.
    pub async fn evaluate(
        &mut self,
        activation: NamedTensors,
        labels: HostTensor,
        shared: &Shared,
    ) -> Result<v1::TrainEvaluated, Status> {
        let loss = self.half.training.loss;
        let job = move |own: &mut Own| own.tail.evaluate(&activation, &labels, loss);
        let (loss, correct) = self.compute(shared, job).await?.map_err(model_status)?;
        Ok(v1::TrainEvaluated { loss, correct })
    }

    /// What the edge's last stages are to be given for a batch, without an update.
    pub async fn infer(
        &mut self,
        activation: NamedTensors,
        shared: &Shared,
    ) -> Result<v1::TrainForwarded, Status> {
        let begin = Instant::now();
        let job = move |own: &mut Own| {
            let output = own.tail.infer(&activation)?;
            Ok(wire::encode(output, own.activation_codec.as_ref()))
        };
        let activation = self.compute(shared, job).await?.map_err(model_status)?;
        Ok(v1::TrainForwarded { id: 0, micro_batch: 0, activation, tail_ms: ms_since(begin) })
    }

    /// Writes this half of step `id`, which must be the one the run is at. What keeps the disk from
    /// taking it is for the edge to know, and no reason to end the stream.
    pub async fn checkpoint(
        &mut self,
        asked: v1::TrainCheckpoint,
        shared: &Shared,
    ) -> Result<v1::TrainCheckpointed, Status> {
        let (id, live) = (asked.id, self.ledger.live());
        if id != live {
            let text = format!("checkpoint of step {id}, but the run is at step {live}");
            return Err(Status::aborted(text));
        }
        let (state, left_out) = self.state()?;
        let (half, keep) = (self.half.clone(), shared.keep_checkpoints);
        let done = blocking(move || {
            let store = half.library.store();
            let of_edge = asked.held.into_iter().collect();
            let written = half.write(id, state, left_out);
            let written = written.and_then(|()| store.retain(&half.id, keep, &of_edge));
            let problem = written.err().map(|e| e.to_string()).unwrap_or_default();
            let held = store.steps(&half.id).into_iter().collect();
            Ok(v1::TrainCheckpointed { id, held, problem })
        })
        .await?;
        if done.problem.is_empty() {
            self.kept = id;
        }
        Ok(done)
    }

    /// Whether the edge may have taken a step more, whose commit is then on its way.
    pub fn awaits_commit(&self) -> bool {
        self.ledger.is_prepared()
    }

    /// Writes this half of the step that was committed last, since the process ends; gives that step. Whether the
    /// edge can use it is for the two to find out when they meet again, so that nothing is removed.
    pub async fn keep(&mut self) -> Result<u64, Status> {
        let step = self.ledger.live();
        // What is on disk already would be missing for a moment; step 0 is the seed's.
        if step == self.kept {
            return Ok(step);
        }
        let (state, left_out) = self.state()?;
        let half = self.half.clone();
        blocking(move || half.write(step, state, left_out).map_err(store_status)).await?;
        self.kept = step;
        Ok(step)
    }

    /// What a checkpoint is made of. Of the step that is being prepared it has nothing.
    fn state(&self) -> Result<(Vec<StageState>, LeftOut), Status> {
        let own = self.own.as_ref().ok_or_else(broken)?;
        Ok((own.tail.state().map_err(model_status)?, own.gradients.left_out()))
    }

    /// Has a compute thread work on the tail.
    async fn compute<T: Send + 'static>(
        &mut self,
        shared: &Shared,
        work: impl FnOnce(&mut Own) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let mut own = self.own.take().ok_or_else(broken)?;
        let job = move || {
            let done = work(&mut own);
            (own, done)
        };
        // Patiently: a refused job would take the tail's weights with it.
        let (own, done) = shared.pool.run_patiently(job).await.map_err(compute_status)?;
        self.own = Some(own);
        Ok(done)
    }
}

impl Own {
    /// Drops what was prepared of a step.
    fn forget(&mut self) {
        self.tail.forget();
        self.gradients.forget();
    }
}

/// Both sides are not where the other believes; opening the run again puts that right.
fn disorder(error: OutOfOrder) -> Status {
    Status::aborted(error.to_string())
}

fn broken() -> Status {
    Status::aborted("a step of this run failed; open the run again")
}
