//! The group itself: a task that hears of everything that happens. What it does next is in
//! [`super::rounds`].
//!
//! A round: draw who takes part, open their turns, let tails learn from their steps, average when all
//! that are waited for are done, write the checkpoint, validate. What a round did counts when its
//! checkpoint is written; a node that dies before that begins the round again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use cleave_shared::{
    checkpoint::{self, LibraryError, TrainingRun},
    codec::{self, SharedCodec},
    model::{Segment, StageState},
    session::{Average, AverageError, Finish, GroupSpec, Round},
    wire::{
        self, NamedTensors,
        v1::{self, group_reply::Kind as Reply},
    },
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    Shared,
    steps::Computed,
    strategy::{EdgeBatch, EdgeStep, Heads, Pace, Strategy, strategy},
    stream::{Event, Member, Said},
};
use crate::service::{compute_status, model_status};

pub struct Coordinator {
    pub(super) shared: Arc<Shared>,
    pub(super) run: TrainingRun,
    pub(super) split: usize,
    pub(super) gradient_codec: SharedCodec,
    pub(super) spec: Arc<GroupSpec>,
    pub(super) strategy: Arc<dyn Strategy>,
    /// Rounds finished, and to finish.
    pub(super) done: u64,
    pub(super) rounds: u64,
    pub(super) head: Vec<StageState>,
    /// The group's tail; with a compute thread while it learns.
    pub(super) tail: Option<Segment>,
    /// Counts how often the tail was replaced by an earlier one.
    pub(super) ticket: u64,
    /// What the tail was when the turn began that may have to be taken back, or the round.
    pub(super) base: Vec<StageState>,
    pub(super) members: BTreeMap<usize, Member>,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    /// The first round waits for all edges until then.
    Gathering(Instant),
    Between,
    Round(Box<Active>),
    Validating {
        edge: usize,
        since: Instant,
    },
    Ended,
}

/// A round that is going on.
pub(super) struct Active {
    pub round: Round,
    pub turns: BTreeMap<usize, Turn>,
    pub heads: Average,
    pub tails: Average,
    /// The head of the lowest edge that finished, for its optimiser's state.
    pub lowest: Option<(usize, Vec<StageState>)>,
    /// Steps of every turn, where all have as many.
    pub steps: Option<u64>,
}

/// A turn that is open.
#[derive(Default)]
pub(super) struct Turn {
    /// Its own tail, where each has one; with a compute thread while it learns.
    pub tail: Option<Segment>,
    /// What the edge sent last, until a tail takes it.
    pub sent: Option<Sent>,
    /// The step that was sent last.
    pub step: u64,
    /// Whether a tail has taken it and not answered yet.
    pub busy: bool,
    /// Whether the gradient of its head is what it has to send next.
    pub owes_gradient: bool,
}

pub(super) enum Sent {
    Batch(EdgeBatch),
    Gradient(NamedTensors),
}

impl Turn {
    /// Whether a step has begun that is not over.
    fn is_within_step(&self) -> bool {
        self.waits() || self.owes_gradient
    }

    /// Whether the edge has yet to be answered.
    fn waits(&self) -> bool {
        self.busy || self.sent.is_some()
    }
}

impl Coordinator {
    /// The group as it was after `round`; reads from disk.
    pub fn open(
        shared: Arc<Shared>,
        (run, split): (TrainingRun, usize),
        gradient_codec: SharedCodec,
        spec: GroupSpec,
        rounds: u64,
        round: u64,
    ) -> Result<Self, LibraryError> {
        let strategy = strategy(spec.topology.kind).expect("a group's topology was checked");
        let half = |range| TrainingRun { range, ..run.clone() }.restore(round);
        let head = half(0..split)?.state()?;
        let tail = half(split..run.range.end)?;
        let patience = Duration::from_secs(spec.topology.deadline_s);
        Ok(Self {
            shared,
            run,
            split,
            gradient_codec,
            spec: Arc::new(spec),
            strategy: strategy.into(),
            done: round,
            rounds,
            head,
            tail: Some(tail),
            ticket: 0,
            base: Vec::new(),
            members: BTreeMap::new(),
            phase: Phase::Gathering(Instant::now() + patience),
        })
    }

    /// Runs until the last member left.
    pub async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        own: mpsc::UnboundedSender<Event>,
    ) {
        let mut ended = self.shared.ended.clone();
        loop {
            let wake = self.wake();
            let heard = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(wake.into()) => None,
                _ = ended.wait_for(|ended| *ended) => {
                    self.fail(&Status::unavailable("the cloud is ending; join again"));
                    return;
                }
            };
            let outcome = async {
                match heard {
                    Some(event) => self.handle(event).await?,
                    None => self.expire()?,
                }
                self.go_on(&own).await
            };
            if let Err(status) = outcome.await {
                tracing::warn!(run = self.run.id, %status, "group failed");
                self.fail(&status);
                return;
            }
            if self.members.is_empty() {
                tracing::info!(run = self.run.id, round = self.done, "group has no members");
                return;
            }
        }
    }

    fn fail(&mut self, status: &Status) {
        for member in std::mem::take(&mut self.members).into_values() {
            let _ = member.replies.send(Err(status.clone()));
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.spec.topology.deadline_s)
    }

    /// When something is to be done though nothing happens.
    fn wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        match &self.phase {
            Phase::Gathering(until) => *until,
            Phase::Round(active) => active.round.next_expiry(self.patience()).unwrap_or(far),
            Phase::Validating { since, .. } => *since + self.patience(),
            Phase::Between | Phase::Ended => far,
        }
    }

    /// The members that can be counted on: one that was too slow is not, until it is heard of again.
    pub(super) fn present(&self) -> BTreeSet<usize> {
        let present = self.members.values().filter(|member| !member.late);
        present.map(|member| member.edge).collect()
    }

    async fn handle(&mut self, event: Event) -> Result<(), Status> {
        match event {
            Event::Joined(member) => self.join(member),
            Event::Left { edge, stream } if self.is_member(edge, stream) => self.leave(edge),
            Event::Said { edge, stream, said } if self.is_member(edge, stream) => {
                self.hear(edge, said).await
            }
            Event::Left { .. } | Event::Said { .. } => Ok(()),
            Event::Computed(computed) => self.learned(computed),
        }
    }

    fn is_member(&self, edge: usize, stream: u64) -> bool {
        self.members.get(&edge).is_some_and(|member| member.stream == stream)
    }

    /// A member that joins again has lost its former stream, and whatever it was doing.
    fn join(&mut self, member: Member) -> Result<(), Status> {
        let (edge, edges) = (member.edge, self.spec.topology.edges);
        if edge >= edges {
            let text = format!("edge {edge} of a group of {edges}: they are numbered from 0");
            let _ = member.replies.send(Err(Status::invalid_argument(text)));
            return Ok(());
        }
        if self.members.contains_key(&edge) {
            self.leave(edge)?;
        }
        member.reply(Reply::Joined(v1::GroupJoined { round: self.done }));
        if matches!(self.phase, Phase::Ended) {
            member.reply(Reply::Ended(v1::GroupEnded { round: self.done }));
        }
        self.members.insert(edge, member);
        Ok(())
    }

    fn leave(&mut self, edge: usize) -> Result<(), Status> {
        self.members.remove(&edge);
        match &mut self.phase {
            Phase::Round(active) => match active.round.left(edge) {
                true => self.take_back(edge),
                false => Ok(()),
            },
            Phase::Validating { edge: validator, .. } if *validator == edge => {
                self.phase = Phase::Between;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Undoes an open turn. Only where one edge has its turn at a time has it left traces.
    fn take_back(&mut self, edge: usize) -> Result<(), Status> {
        if let Phase::Round(active) = &mut self.phase {
            active.turns.remove(&edge);
        }
        if self.strategy.pace() == Pace::OneByOne {
            self.tail = Some(self.build_tail(&self.base)?);
            self.ticket += 1;
        }
        Ok(())
    }

    pub(super) fn build_tail(&self, states: &[StageState]) -> Result<Segment, Status> {
        let (model, range) = (&self.shared.spec, self.split..self.run.range.end);
        let optimizer = &self.spec.training.optimizer;
        checkpoint::build_half(model, range, states, optimizer).map_err(model_status)
    }

    /// Leaves out who is too late.
    fn expire(&mut self) -> Result<(), Status> {
        let (now, patience, mut late) = (Instant::now(), self.patience(), Vec::new());
        match &mut self.phase {
            Phase::Round(active) => {
                let number = active.round.number();
                for edge in active.round.expire(now, patience) {
                    let owes = active.turns.remove(&edge).is_some_and(|turn| !turn.waits());
                    tracing::warn!(
                        run = self.run.id,
                        round = number,
                        edge,
                        "too late for the round"
                    );
                    if let Some(member) = self.members.get_mut(&edge) {
                        member.late = owes;
                        member.reply(Reply::Void(v1::TurnVoid { round: number }));
                    }
                    late.push(edge);
                }
                late.into_iter().try_for_each(|edge| self.take_back(edge))?;
            }
            Phase::Validating { edge, since } if now >= *since + patience => {
                if let Some(member) = self.members.get_mut(edge) {
                    member.late = true;
                }
                self.phase = Phase::Between;
            }
            _ => {}
        }
        Ok(())
    }

    /// What a member says; what does not fit is answered and changes nothing.
    async fn hear(&mut self, edge: usize, said: Said) -> Result<(), Status> {
        if let Some(member) = self.members.get_mut(&edge) {
            member.late = false;
        }
        match said {
            Said::Step { round, step, batch } => self.sent(edge, round, step, Sent::Batch(batch)),
            Said::HeadGradient { round, step, gradient } => {
                self.sent(edge, round, step, Sent::Gradient(gradient))
            }
            Said::Done { round, head } => self.finished(edge, round, head),
            Said::Evaluate { round, batch } => self.evaluate(edge, round, batch).await,
            Said::Validated { round } => {
                if self.is_validating(edge, round) {
                    self.phase = Phase::Between;
                }
                Ok(())
            }
        }
    }

    fn is_validating(&self, edge: usize, round: u64) -> bool {
        let asked = matches!(self.phase, Phase::Validating { edge: asked, .. } if asked == edge);
        asked && round == self.done
    }

    fn sent(&mut self, edge: usize, number: u64, step: u64, sent: Sent) -> Result<(), Status> {
        let in_step = self.strategy.pace() == Pace::InStep;
        if let Phase::Round(active) = &mut self.phase
            && active.round.number() == number
            && let Some(turn) = active.turns.get_mut(&edge)
        {
            let expected = match sent {
                Sent::Batch(_) => turn.step + 1,
                Sent::Gradient(_) => turn.step,
            };
            let is_gradient = matches!(sent, Sent::Gradient(_));
            let wanted = turn.owes_gradient == is_gradient;
            if turn.sent.is_some() || turn.busy || step != expected || !wanted {
                let text = format!("edge {edge}: step {step} is out of order; join again");
                return self.dismiss(edge, Status::aborted(text));
            }
            (turn.step, turn.sent, turn.owes_gradient) = (step, Some(sent), false);
            if in_step {
                active.round.clock(edge, None);
            }
            return Ok(());
        }
        self.reply(edge, Reply::Void(v1::TurnVoid { round: number }));
        Ok(())
    }

    fn reply(&self, edge: usize, reply: Reply) {
        if let Some(member) = self.members.get(&edge) {
            member.reply(reply);
        }
    }

    /// Ends a membership with an error.
    fn dismiss(&mut self, edge: usize, status: Status) -> Result<(), Status> {
        if let Some(member) = self.members.get(&edge) {
            let _ = member.replies.send(Err(status));
        }
        self.leave(edge)
    }

    /// A turn is over: its halves become part of the round's.
    fn finished(&mut self, edge: usize, number: u64, head: Vec<StageState>) -> Result<(), Status> {
        let samples = self.members.get(&edge).map_or(0, |m| m.samples);
        let heads = self.strategy.heads();
        let finish = match &mut self.phase {
            Phase::Round(active) if active.turns.get(&edge).is_some_and(Turn::is_within_step) => {
                let text = format!("edge {edge} ended its turn within a step; join again");
                return self.dismiss(edge, Status::aborted(text));
            }
            Phase::Round(active) => active.round.finish(number, edge),
            // The round is over; whether it was part of it, the edge need not know.
            _ => Finish::Again,
        };
        if let (Finish::Taken, Phase::Round(active)) = (finish, &mut self.phase) {
            let turn = active.turns.remove(&edge);
            match heads {
                Heads::Travel => self.head = head,
                Heads::Averaged | Heads::Equal => {
                    let weights = checkpoint::named_weights(&head);
                    active.heads.add(samples, &weights).map_err(diverged)?;
                    if active.lowest.as_ref().is_none_or(|(lowest, _)| edge < *lowest) {
                        active.lowest = Some((edge, head));
                    }
                }
            }
            if let Some(tail) = turn.and_then(|turn| turn.tail) {
                let states = tail.state().map_err(model_status)?;
                let weights = checkpoint::named_weights(&states);
                active.tails.add(samples, &weights).map_err(diverged)?;
            }
        }
        let round = number;
        self.reply(
            edge,
            match finish {
                Finish::Taken | Finish::Again => Reply::Taken(v1::TurnTaken { round }),
                Finish::Late => Reply::Void(v1::TurnVoid { round }),
            },
        );
        Ok(())
    }

    /// The cloud's part of a validation; one that took too long is not answered any more.
    async fn evaluate(&mut self, edge: usize, round: u64, batch: EdgeBatch) -> Result<(), Status> {
        if !self.is_validating(edge, round) {
            self.reply(edge, Reply::Void(v1::TurnVoid { round }));
            return Ok(());
        }
        let tail = self.tail.take().ok_or_else(broken)?;
        let loss = self.spec.training.loss;
        let job = move || {
            let done = tail.evaluate(&batch.activation, &batch.labels, loss);
            (tail, done)
        };
        let (tail, done) = self.shared.pool.run_patiently(job).await.map_err(compute_status)?;
        self.tail = Some(tail);
        match done {
            Ok((loss, correct)) => {
                self.reply(edge, Reply::Evaluated(v1::GroupEvaluated { loss, correct }));
                Ok(())
            }
            Err(error) => self.dismiss(edge, model_status(error)),
        }
    }

    /// A tail comes back from a compute thread.
    fn learned(&mut self, computed: Computed) -> Result<(), Status> {
        let Computed { tail, owner, ticket, edges, steps, tail_ms } = computed;
        match (owner, &mut self.phase) {
            (None, _) if ticket == self.ticket => self.tail = Some(tail.ok_or_else(broken)?),
            (Some(edge), Phase::Round(active)) if ticket == active.round.number() => {
                if let Some(turn) = active.turns.get_mut(&edge) {
                    turn.tail = Some(tail.ok_or_else(broken)?);
                }
            }
            // Its turn was taken back meanwhile.
            _ => return Ok(()),
        }
        match steps {
            Ok(steps) => steps.into_iter().for_each(|step| self.answer(step, tail_ms)),
            Err(status) => {
                for edge in edges {
                    self.dismiss(edge, status.clone())?;
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, done: EdgeStep, tail_ms: f64) {
        let EdgeStep { edge, loss, correct, samples, gradient } = done;
        let Phase::Round(active) = &mut self.phase else { return };
        let Some(turn) = active.turns.get_mut(&edge) else { return };
        (turn.busy, turn.owes_gradient) = (false, self.strategy.heads() == Heads::Equal);
        let (round, step) = (active.round.number(), turn.step);
        // By chance, and nothing is kept: a turn that is repeated is answered with the same bytes.
        let place = [round, step, edge as u64];
        let encode = |name: &str, tensor| {
            let seed = codec::seed(name, &place);
            self.gradient_codec.encode_seeded(tensor, seed)
        };
        let gradient = wire::encode_with(gradient, encode);
        if self.strategy.pace() == Pace::InStep {
            active.round.clock(edge, Some(Instant::now()));
        }
        let stepped = v1::GroupStepped { round, step, loss, correct, samples, gradient, tail_ms };
        self.reply(edge, Reply::Stepped(stepped));
    }
}

pub(super) fn diverged(error: AverageError) -> Status {
    Status::failed_precondition(error.to_string())
}

pub(super) fn broken() -> Status {
    Status::aborted("a step of this group failed; join again")
}
