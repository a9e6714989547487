//! What a group does next: begins rounds, opens turns, gives batches to tails, ends rounds.

use std::{collections::BTreeMap, time::Instant};

use cleave_shared::{
    checkpoint,
    codec::{F32, LeftOut},
    model::{Segment, StageState},
    session::{Average, Round},
    wire::{
        self, NamedTensors,
        v1::{self, group_reply::Kind as Reply},
    },
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    coordinator::{Active, Coordinator, Phase, Sent, Turn, broken, diverged},
    steps::{self, Work},
    strategy::{EdgeBatch, Heads, Pace},
    stream::Event,
};
use crate::{
    service::{blocking, model_status},
    weights::store_status,
};

impl Coordinator {
    /// Everything that can be done now.
    pub(super) async fn go_on(&mut self, own: &mpsc::UnboundedSender<Event>) -> Result<(), Status> {
        loop {
            match &self.phase {
                Phase::Gathering(until) => {
                    let all = self.members.len() == self.spec.topology.edges;
                    if self.done == self.rounds
                        || (!self.members.is_empty() && (all || Instant::now() >= *until))
                    {
                        self.phase = Phase::Between;
                        continue;
                    }
                    return Ok(());
                }
                Phase::Between if self.done >= self.rounds => {
                    self.phase = Phase::Ended;
                    let ended = v1::GroupEnded { round: self.done };
                    self.members.values().for_each(|m| m.reply(Reply::Ended(ended)));
                    return Ok(());
                }
                Phase::Between if self.present().is_empty() => return Ok(()),
                Phase::Between => self.begin_round()?,
                Phase::Round(_) => {
                    self.open_turns()?;
                    self.learn(own)?;
                    let present = self.present();
                    match &self.phase {
                        // A tail that is still learning is waited for.
                        Phase::Round(active)
                            if active.round.is_over(&present) && self.tail.is_some() =>
                        {
                            self.end_round().await?;
                        }
                        _ => return Ok(()),
                    }
                }
                Phase::Validating { .. } | Phase::Ended => return Ok(()),
            }
        }
    }

    fn begin_round(&mut self) -> Result<(), Status> {
        let (topology, present) = (&self.spec.topology, self.present());
        let again = self.strategy.pace() != Pace::InStep;
        let (edges, wanted) = (topology.edges, topology.participants());
        let round = Round::draw(self.done + 1, &present, edges, wanted, self.spec.seed, again);
        // Heads stay equal only if all apply every step.
        let steps = match self.strategy.heads() {
            Heads::Equal => {
                let drawn = round.drawn().filter_map(|edge| self.members.get(&edge));
                drawn.map(|member| self.steps_of(member.samples)).max()
            }
            Heads::Travel | Heads::Averaged => None,
        };
        if self.strategy.own_tails() {
            self.base = self.tail.as_ref().ok_or_else(broken)?.state().map_err(model_status)?;
            // Optimisers of tails start anew with each turn, as those of heads do.
            self.base.iter_mut().for_each(|stage| stage.optimizer.clear());
        }
        self.phase = Phase::Round(Box::new(Active {
            round,
            turns: BTreeMap::new(),
            heads: Average::default(),
            tails: Average::default(),
            lowest: None,
            steps,
        }));
        Ok(())
    }

    fn steps_of(&self, samples: u64) -> u64 {
        self.spec.topology.steps(samples, self.spec.batch_size)
    }

    /// Opens as many turns as may be open.
    fn open_turns(&mut self) -> Result<(), Status> {
        let most = match self.strategy.pace() {
            Pace::OneByOne => 1,
            Pace::Alone => self.spec.topology.at_once,
            Pace::InStep => usize::MAX,
        };
        let present = self.present();
        loop {
            let Phase::Round(active) = &mut self.phase else { return Ok(()) };
            let Some(edge) = active.round.next(&present, most, Instant::now()) else {
                return Ok(());
            };
            let (round, fixed) = (active.round.number(), active.steps);
            if self.strategy.pace() == Pace::OneByOne {
                self.base = self.tail.as_ref().ok_or_else(broken)?.state().map_err(model_status)?;
            }
            let own = self.strategy.own_tails().then(|| self.build_tail(&self.base)).transpose()?;
            let Some(member) = self.members.get(&edge) else { continue };
            let heads = self.strategy.heads();
            let carried = heads != Heads::Averaged;
            member.reply(Reply::Turn(v1::Turn {
                round,
                steps: fixed.unwrap_or_else(|| self.steps_of(member.samples)),
                head: Some(checkpoint::pack(&self.head, carried)),
                return_optimizer: carried,
                sum_gradients: heads == Heads::Equal,
                learning_rate: self.spec.learning_rate(round, self.rounds),
            }));
            if let Phase::Round(active) = &mut self.phase {
                active.turns.insert(edge, Turn { tail: own, ..Turn::default() });
            }
        }
    }

    /// Gives tails what they can learn from.
    fn learn(&mut self, own: &mpsc::UnboundedSender<Event>) -> Result<(), Status> {
        match self.strategy.pace() {
            Pace::InStep => self.learn_in_step(own),
            Pace::OneByOne | Pace::Alone => {
                self.learn_alone(own);
                Ok(())
            }
        }
    }

    fn learn_alone(&mut self, own: &mpsc::UnboundedSender<Event>) {
        let Phase::Round(active) = &mut self.phase else { return };
        let number = active.round.number();
        let mut work = Vec::new();
        for (&edge, turn) in &mut active.turns {
            let (tail, owner, ticket) = match self.strategy.own_tails() {
                true => (&mut turn.tail, Some(edge), number),
                false => (&mut self.tail, None, self.ticket),
            };
            if matches!(turn.sent, Some(Sent::Batch(_)))
                && let Some(tail) = tail.take()
                && let Some(Sent::Batch(batch)) = turn.sent.take()
            {
                turn.busy = true;
                work.push((tail, vec![batch], owner, ticket));
            }
        }
        for (tail, batches, owner, ticket) in work {
            self.start(own, tail, batches, owner, ticket, number);
        }
    }

    /// All that are waited for have sent what they have to send: batches, or gradients of heads.
    fn learn_in_step(&mut self, own: &mpsc::UnboundedSender<Event>) -> Result<(), Status> {
        let Phase::Round(active) = &mut self.phase else { return Ok(()) };
        if active.turns.is_empty()
            || self.tail.is_none()
            || active.turns.values().any(|turn| turn.sent.is_none())
        {
            return Ok(());
        }
        let number = active.round.number();
        let (mut batches, mut gradients) = (Vec::new(), Vec::new());
        for (&edge, turn) in &mut active.turns {
            match turn.sent.take() {
                Some(Sent::Batch(batch)) => {
                    turn.busy = true;
                    batches.push(batch);
                }
                Some(Sent::Gradient(gradient)) => gradients.push((edge, gradient)),
                None => {}
            }
        }
        if !batches.is_empty() && !gradients.is_empty() {
            return Err(Status::internal("edges of one group are at different points of a step"));
        }
        if let Some(tail) = self.tail.take_if(|_| !batches.is_empty()) {
            let ticket = self.ticket;
            self.start(own, tail, batches, None, ticket, number);
            return Ok(());
        }
        self.sum_gradients(gradients)
    }

    fn start(
        &self,
        own: &mpsc::UnboundedSender<Event>,
        tail: Segment,
        batches: Vec<EdgeBatch>,
        owner: Option<usize>,
        ticket: u64,
        round: u64,
    ) {
        let learning_rate = self.spec.learning_rate(round, self.rounds);
        let work = Work { tail, batches, owner, ticket, learning_rate };
        let (strategy, spec) = (self.strategy.clone(), self.spec.clone());
        steps::start(work, strategy, spec, self.shared.pool.clone(), own.clone());
    }

    /// Gives every edge the sum, in which the order of the edges plays no part.
    fn sum_gradients(&mut self, sent: Vec<(usize, NamedTensors)>) -> Result<(), Status> {
        let mut sum = Average::default();
        for (_, gradient) in &sent {
            sum.add(1, gradient).map_err(diverged)?;
        }
        let gradient = wire::encode(sum.sum().map_err(diverged)?, &F32);
        let Phase::Round(active) = &mut self.phase else { return Ok(()) };
        let round = active.round.number();
        for (edge, _) in sent {
            active.round.clock(edge, Some(Instant::now()));
            let step = active.turns.get(&edge).map_or(0, |turn| turn.step);
            let gradient = gradient.clone();
            if let Some(member) = self.members.get(&edge) {
                member.reply(Reply::HeadGradient(v1::HeadGradient { round, step, gradient }));
            }
        }
        Ok(())
    }

    /// What the round's turns learned becomes the group's model, on disk.
    async fn end_round(&mut self) -> Result<(), Status> {
        let Phase::Round(active) = std::mem::replace(&mut self.phase, Phase::Between) else {
            return Ok(());
        };
        let finished: Vec<usize> = active.round.finished().collect();
        if finished.is_empty() {
            tracing::warn!(
                run = self.run.id,
                round = active.round.number(),
                "nobody finished; again"
            );
            return Ok(());
        }
        if active.heads.samples() > 0 {
            let stages = self.shared.spec.stage_names();
            let mean = active.heads.mean().map_err(diverged)?;
            let mut head = checkpoint::with_weights(&stages[..self.split], mean);
            if let (Heads::Equal, Some((_, lowest))) = (self.strategy.heads(), active.lowest) {
                let states = head.iter_mut().zip(lowest);
                states.for_each(|(stage, of)| stage.optimizer = of.optimizer);
            }
            self.head = head;
            if active.tails.samples() > 0 {
                let mean = active.tails.mean().map_err(diverged)?;
                let states = checkpoint::with_weights(&stages[self.split..], mean);
                self.tail = Some(self.build_tail(&states)?);
            }
        }
        self.done = active.round.number();
        self.write().await?;
        tracing::info!(
            run = self.run.id,
            round = self.done,
            edges = finished.len(),
            "round finished"
        );
        if let Some((&edge, member)) = self.members.iter().find(|(_, member)| !member.late) {
            let head = Some(checkpoint::pack(&self.head, false));
            member.reply(Reply::Validate(v1::Validate { round: self.done, head }));
            self.phase = Phase::Validating { edge, since: Instant::now() };
        }
        Ok(())
    }

    async fn write(&self) -> Result<(), Status> {
        let tail = self.tail.as_ref().ok_or_else(broken)?.state().map_err(model_status)?;
        let states: Vec<StageState> = self.head.iter().cloned().chain(tail).collect();
        let (run, round, keep) = (self.run.clone(), self.done, self.shared.keep_checkpoints);
        blocking(move || {
            run.write(round, states, LeftOut::new()).map_err(store_status)?;
            // No other node holds any of them.
            let store = run.library.store();
            store.retain(&run.id, keep, &store.steps(&run.id)).map_err(store_status)
        })
        .await
    }
}
