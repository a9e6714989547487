//! The micro-batches of one step, under way at the same time.
//!
//! ```text
//!   edge      F0 F1 F2    B0 F3 B1    B2    B3  commit
//!   uplink       0  1  2     3
//!   cloud           0  1  2     3
//!   downlink           0  1  2     3
//! ```
//!
//! One forward, one backward (1F1B; Narayanan et al. 2019): the edge computes the backward pass of a
//! micro-batch as soon as its gradient is there, and forward passes in between. Gradients are added up in the
//! order of the micro-batches, whatever the network does, so the sum does not depend on time. Nothing is
//! applied here: a step that is prepared can be prepared again.

use std::time::Instant;

use cleave_shared::{
    model::ForwardPass,
    wire::{self, v1},
};

use super::{
    ConversationError,
    conversation::{Answer, Conversation, Prepared},
    head::{Head, LastPass, Purpose},
    micro_batch::MicroBatch,
    score::Tally,
    timeline::{Lane, Span, Timeline, TimelineClock},
};
use crate::cloud::{CloudClient, Exchange};

/// What a step is prepared with.
pub struct Pipeline<'a> {
    pub client: &'a CloudClient,
    pub head: &'a mut Head,
    pub cloud: &'a mut Conversation,
    pub timeline: &'a mut Timeline,
}

/// What a prepared step came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// Mean over the batch.
    pub loss: f64,
    /// Sum of the squares of the cloud's gradients, if the run clips them.
    pub cloud_square: f64,
    /// Computing on the edge, computing in the cloud, and bytes under way, ms. They may overlap.
    pub head_ms: f64,
    pub tail_ms: f64,
    pub link_ms: f64,
    /// When bytes were under way, by the timeline's clock, in the order of the replies.
    under_way: Vec<[f64; 2]>,
}

/// A step on its way.
struct Step<'a> {
    id: u64,
    micro_batches: &'a [MicroBatch],
    /// What was sent, in its order.
    sent: Vec<Sent>,
    tally: &'a mut Tally,
    summary: Summary,
}

/// A micro-batch that waits for its gradient.
struct Sent {
    pass: Option<ForwardPass>,
    at: Instant,
    /// Loss and right answers, where the last stages are this node's.
    own_score: Option<(f32, u64)>,
}

impl Pipeline<'_> {
    /// Takes every micro-batch of step `id` forth and back, and adds their scores to `tally`.
    pub async fn prepare(
        &mut self,
        id: u64,
        micro_batches: &[MicroBatch],
        tally: &mut Tally,
    ) -> Result<Summary, ConversationError> {
        let sent = Vec::with_capacity(micro_batches.len());
        let mut step = Step { id, micro_batches, sent, tally, summary: Summary::default() };
        for index in 0..micro_batches.len() {
            let prepared = loop {
                let all_sent = step.sent.len() == micro_batches.len();
                let answer = match self.cloud.try_answer()? {
                    None if all_sent => Some(self.cloud.answer().await?),
                    answer => answer,
                };
                match answer {
                    Some(Answer::Prepared(prepared)) => break prepared,
                    Some(Answer::Forwarded(forwarded)) => self.turn(&mut step, forwarded).await?,
                    None => self.forward(&mut step).await?,
                }
            };
            self.backward(&mut step, index, prepared).await?;
        }
        let mut summary = step.summary;
        summary.link_ms = union_ms(&mut summary.under_way);
        Ok(summary)
    }

    /// Sends the next micro-batch.
    async fn forward(&mut self, step: &mut Step<'_>) -> Result<(), ConversationError> {
        let index = step.sent.len();
        let MicroBatch { batch, share, .. } = &step.micro_batches[index];
        let want_gradient = self.head.wants_gradient();
        let first = step.micro_batches[..index].iter().map(|m| m.samples).sum();
        let purpose = Purpose::Prepare { first, share: *share };
        let forward = self.head.forward(batch.inputs.clone(), purpose).await;
        let forward = forward.map_err(ConversationError::Local)?;
        let sent = (!self.head.has_last()).then(|| wire::encode_labels(batch.labels.clone()));
        let at = Instant::now();
        let micro = v1::TrainPrepare {
            id: step.id,
            activation: forward.activation,
            labels: sent,
            want_gradient,
            micro_batch: index as u32,
            micro_batches: step.micro_batches.len() as u32,
            share: *share,
        };
        self.cloud.prepare(micro).await?;
        let [begin, computed, encoded] = forward.times;
        let mut lanes = self.lanes(step.id, index);
        lanes.add(Lane::HeadForward, begin, computed);
        lanes.add(Lane::Encode, computed, encoded);
        step.summary.head_ms += ms(begin, encoded);
        step.sent.push(Sent { pass: forward.pass, at, own_score: None });
        Ok(())
    }

    /// Takes a micro-batch through the last stages, which are this node's, and sends it back.
    async fn turn(
        &mut self,
        step: &mut Step<'_>,
        forwarded: v1::TrainForwarded,
    ) -> Result<(), ConversationError> {
        let v1::TrainForwarded { id, micro_batch, activation, tail_ms } = forwarded;
        let known = (id == step.id).then(|| step.sent.get_mut(micro_batch as usize)).flatten();
        let Some(sent) = known else {
            return Err(ConversationError::Refused(format!(
                "the cloud forwarded micro-batch {micro_batch} of step {id}, which it was not sent"
            )));
        };
        let micro = &step.micro_batches[micro_batch as usize];
        let labels = micro.batch.labels.clone();
        let pass = self.head.last_pass(micro_batch, activation, labels, micro.share).await;
        let LastPass { loss, correct, gradient, times } = pass.map_err(ConversationError::Local)?;
        sent.own_score = Some((loss, correct));
        step.summary.tail_ms += tail_ms;
        step.summary.head_ms += ms(times[0], times[1]);
        self.lanes(id, micro_batch as usize).add(Lane::HeadForward, times[0], times[1]);
        self.cloud.backward(v1::TrainBackward { id, micro_batch, gradient }).await
    }

    /// Takes in the answer to a micro-batch.
    async fn backward(
        &mut self,
        step: &mut Step<'_>,
        index: usize,
        prepared: Prepared,
    ) -> Result<(), ConversationError> {
        let Prepared { reply, returned } = prepared;
        if (reply.id, reply.micro_batch as usize) != (step.id, index) {
            let (id, found, part) = (step.id, reply.id, reply.micro_batch);
            return Err(ConversationError::Refused(format!(
                "the cloud answered micro-batch {part} of step {found} where {index} of {id} was due"
            )));
        }
        let micro = &step.micro_batches[index];
        let (loss, correct) = step.sent[index].own_score.unwrap_or((reply.loss, reply.correct));
        let counted = step.tally.add(&micro.batch.labels, loss, correct);
        counted.map_err(ConversationError::Local)?;
        let summary = &mut step.summary;
        summary.loss += f64::from(loss) * micro.share;
        summary.cloud_square = reply.gradient_square;
        summary.tail_ms += reply.tail_ms;
        let ways = self.note_transfer(&reply, index, step.sent[index].at, returned);
        summary.under_way.extend(ways);
        if let Some(pass) = step.sent[index].pass.take() {
            let times = self.head.backward(pass, reply.gradient).await;
            let [begin, decoded, end] = times.map_err(ConversationError::Local)?;
            let mut lanes = self.lanes(step.id, index);
            lanes.add(Lane::Decode, begin, decoded);
            lanes.add(Lane::HeadBackward, decoded, end);
            step.summary.head_ms += ms(begin, end);
        }
        Ok(())
    }

    /// Notes the way up, the tail and the way down; gives the two ways, ms of the timeline's clock.
    fn note_transfer(
        &mut self,
        reply: &v1::TrainPrepared,
        index: usize,
        sent: Instant,
        returned: Instant,
    ) -> [[f64; 2]; 2] {
        let exchange = Exchange {
            instance: reply.instance,
            sent_ns: self.client.ns_at(sent),
            arrived_ns: reply.received_ns,
            left_ns: reply.sent_ns,
            returned_ns: self.client.ns_at(returned),
        };
        let (up_ms, down_ms) = self.client.observe(exchange);
        let clock = self.timeline.clock();
        let (sent, returned) = (clock.ms(sent), clock.ms(returned));
        let since_received = |ns: u64| ns.saturating_sub(reply.received_ns) as f64 / 1e6;
        let received = sent + up_ms;
        let begun = received + since_received(reply.begun_ns);
        let ended = received + since_received(reply.ended_ns);
        let mut lanes = self.lanes(reply.id, index);
        lanes.add_ms(Lane::Uplink, sent, received);
        lanes.add_ms(Lane::Tail, begun, ended);
        lanes.add_ms(Lane::Downlink, returned - down_ms, returned);
        [[sent, received], [returned - down_ms, returned]]
    }

    fn lanes(&mut self, step: u64, micro_batch: usize) -> Lanes<'_> {
        let clock = self.timeline.clock();
        Lanes { timeline: self.timeline, clock, step, micro_batch: micro_batch as u32 }
    }
}

/// Notes the spans of one micro-batch.
struct Lanes<'a> {
    timeline: &'a mut Timeline,
    clock: TimelineClock,
    step: u64,
    micro_batch: u32,
}

impl Lanes<'_> {
    fn add(&mut self, lane: Lane, start: Instant, end: Instant) {
        self.add_ms(lane, self.clock.ms(start), self.clock.ms(end));
    }

    fn add_ms(&mut self, lane: Lane, start_ms: f64, end_ms: f64) {
        let Self { step, micro_batch, .. } = *self;
        self.timeline.add(Span { step, micro_batch, lane, start_ms, end_ms });
    }
}

fn ms(start: Instant, end: Instant) -> f64 {
    end.saturating_duration_since(start).as_secs_f64() * 1e3
}

/// How long at least one of the intervals lasts.
fn union_ms(intervals: &mut [[f64; 2]]) -> f64 {
    intervals.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let (mut total, mut until) = (0.0, f64::NEG_INFINITY);
    for &[start, end] in intervals.iter() {
        total += (end - start.max(until)).max(0.0);
        until = until.max(end);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_under_way_counts_once() {
        assert_eq!(union_ms(&mut []), 0.0);
        assert_eq!(union_ms(&mut [[5.0, 9.0], [0.0, 2.0], [1.0, 3.0], [6.0, 7.0]]), 7.0);
    }
}
