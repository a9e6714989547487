//! One turn: some steps with the head that came, and the head given back.

use std::time::Instant;

use cleave_shared::{
    checkpoint,
    codec::F32,
    data::Batch,
    model::{ModelError, Segment, Update},
    wire::{
        self, NamedTensors,
        v1::{self, group_reply::Kind as Reply, group_request::Kind},
    },
};

use super::{lines::Step, member::Member, stream::GroupStream};
use crate::train::ConversationError;

/// The group went on without this turn.
struct Void;

impl Member {
    /// Takes the steps of a turn. A turn that is void is dropped without a word.
    pub(super) async fn turn(
        &self,
        cloud: &mut GroupStream,
        turn: v1::Turn,
    ) -> Result<(), ConversationError> {
        let mut turn = turn;
        let mut head = self.head(turn.head.take()).await?;
        for step in 1..=turn.steps {
            match self.step(cloud, &turn, step, head).await? {
                Ok(stepped) => head = stepped,
                Err(Void) => return Ok(()),
            }
        }
        let state = head.state().map_err(local)?;
        drop(head);
        let head = Some(checkpoint::pack(&state, turn.return_optimizer));
        cloud.send(Kind::Done(v1::TurnDone { round: turn.round, head })).await?;
        match next_of(cloud, turn.round).await? {
            Reply::Taken(_) | Reply::Void(_) => Ok(()),
            _ => Err(cloud.confused()),
        }
    }

    /// One step; gives the head back.
    async fn step(
        &self,
        cloud: &mut GroupStream,
        turn: &v1::Turn,
        step: u64,
        head: Segment,
    ) -> Result<Result<Segment, Void>, ConversationError> {
        let begin = Instant::now();
        let config = &self.common.config;
        let (round, codec) = (turn.round, config.activation_codec());
        // A function of round and step, so that a turn that is repeated is the same turn.
        let number = (round - 1).saturating_mul(turn.steps).saturating_add(step);
        let Batch { inputs, labels } = self.common.feed.batch(&self.plan.batch(number));
        let mut head = head;
        let job = move || {
            let forward = head.forward(&inputs, false);
            (head, forward)
        };
        let (mut head, forward) = self.compute(job).await?;
        let (activation, pass) = forward.map_err(local)?;
        let activation = wire::encode(activation, codec.as_ref());
        let labels = Some(wire::encode_labels(labels));
        cloud.send(Kind::Step(v1::GroupStep { round, step, activation, labels })).await?;
        let stepped = match next_of(cloud, round).await? {
            Reply::Stepped(stepped) if (stepped.round, stepped.step) == (round, step) => stepped,
            Reply::Void(_) => return Ok(Err(Void)),
            _ => return Err(cloud.confused()),
        };
        let v1::GroupStepped { loss, correct, samples, gradient, tail_ms, .. } = stepped;
        let gradient = wire::decode(gradient, config.gradient_codec().as_ref()).map_err(local)?;
        let summed = turn.sum_gradients;
        let job = move || {
            let done = head.backward(pass, &gradient);
            let own = summed.then(|| head.gradients());
            (head, done, own)
        };
        let (mut head, done, own) = self.compute(job).await?;
        done.map_err(local)?;
        let sum = match own {
            None => None,
            Some(own) => match self.sum(cloud, round, step, own).await? {
                Ok(sum) => Some(sum),
                Err(Void) => return Ok(Err(Void)),
            },
        };
        let (optimizer, rate) = (config.train.optimizer.clone(), turn.learning_rate);
        let job = move || {
            let set = sum.map_or(Ok(()), |sum: NamedTensors| head.set_gradients(&sum));
            set.map(|()| {
                head.commit(&optimizer, Update::at(rate));
                head
            })
        };
        let head = self.compute(job).await?.map_err(|e: ModelError| local(e))?;
        let accuracy = correct as f64 / samples.max(1) as f64;
        let (edge, step_ms) = (self.edge, begin.elapsed().as_secs_f64() * 1e3);
        let bytes = self.link.counters();
        let line = Step {
            round,
            edge,
            step,
            loss,
            accuracy,
            tail_ms,
            step_ms,
            uplink_bytes: bytes.uplink.accepted_bytes,
            downlink_bytes: bytes.downlink.delivered_bytes,
        };
        self.common.lines.step(&line).map_err(ConversationError::Local)?;
        Ok(Ok(head))
    }

    /// Exchanges the gradient of this head for the sum over all edges of the step.
    async fn sum(
        &self,
        cloud: &mut GroupStream,
        round: u64,
        step: u64,
        own: NamedTensors,
    ) -> Result<Result<NamedTensors, Void>, ConversationError> {
        let gradient = wire::encode(own, &F32);
        cloud.send(Kind::HeadGradient(v1::HeadGradient { round, step, gradient })).await?;
        match next_of(cloud, round).await? {
            Reply::HeadGradient(sum) if (sum.round, sum.step) == (round, step) => {
                wire::decode(sum.gradient, &F32).map(Ok).map_err(local)
            }
            Reply::Void(_) => Ok(Err(Void)),
            _ => Err(cloud.confused()),
        }
    }
}

/// The next message, but for what is still said of turns before.
pub(super) async fn next_of(
    cloud: &mut GroupStream,
    round: u64,
) -> Result<Reply, ConversationError> {
    loop {
        match cloud.next().await? {
            Reply::Void(v1::TurnVoid { round: of }) | Reply::Taken(v1::TurnTaken { round: of })
                if of != round => {}
            reply => return Ok(reply),
        }
    }
}

fn local(error: impl std::fmt::Display) -> ConversationError {
    ConversationError::Local(error.to_string())
}
