//! One edge's membership, through as many connections as it takes.

use std::{sync::Arc, time::Duration};

use cleave_shared::{
    checkpoint,
    data::{Batch, BatchPlan},
    link::Link,
    model::Segment,
    wire::{
        self,
        v1::{self, group_reply::Kind as Reply, group_request::Kind},
    },
};

use super::{Common, stream::GroupStream, turn::next_of};
use crate::{
    cloud::CloudClient,
    train::{ConversationError, Patience, Tally, VALIDATION_BATCH, Validated},
};

pub struct Member {
    pub common: Arc<Common>,
    pub edge: usize,
    pub samples: u64,
    pub plan: BatchPlan,
    pub client: CloudClient,
    pub link: Link,
}

impl Member {
    /// Takes part until the group's last round; gives its number.
    pub async fn run(&self) -> Result<u64, String> {
        let (edge, seconds) = (self.edge, self.common.config.train.reconnect_timeout_s);
        let mut patience = Patience::new(seconds);
        loop {
            let mut joined = false;
            let text = match self.take_part(&mut joined).await {
                Ok(round) => return Ok(round),
                Err(ConversationError::Lost(text)) => text,
                Err(fatal) => return Err(format!("edge {edge}: {fatal}")),
            };
            if joined {
                patience.renew();
            }
            if patience.is_over() {
                return Err(format!(
                    "edge {edge}: {text}; gave up after {seconds} s (train.reconnect_timeout_s)"
                ));
            }
            tracing::info!(edge, "{text}; joining again");
            patience.pause().await;
        }
    }

    async fn take_part(&self, joined: &mut bool) -> Result<u64, ConversationError> {
        let patience = Duration::from_secs(self.common.config.train.step_timeout_s);
        let mut cloud = GroupStream::join(&self.client, self.joining(), patience).await?;
        loop {
            match cloud.next().await? {
                Reply::Joined(_) => *joined = true,
                Reply::Turn(turn) => self.turn(&mut cloud, turn).await?,
                Reply::Validate(validate) => self.validate(&mut cloud, validate).await?,
                Reply::Ended(v1::GroupEnded { round }) => return Ok(round),
                // About a turn that was given up already.
                Reply::Void(_) | Reply::Taken(_) => {}
                _ => return Err(cloud.confused()),
            }
        }
    }

    fn joining(&self) -> v1::GroupJoin {
        let Common { config, spec, run, initial, .. } = self.common.as_ref();
        v1::GroupJoin {
            agreement: Some(config.agreement(config.split_point, &initial.to_string())),
            run: run.clone(),
            spec: spec.canonical(),
            edge: self.edge as u32,
            samples: self.samples,
            rounds: config.train.epochs,
        }
    }

    /// The head that the cloud sent.
    pub(super) async fn head(&self, head: Option<v1::Head>) -> Result<Segment, ConversationError> {
        let common = self.common.clone();
        let build = move || {
            let config = &common.config;
            let range = 0..config.split_point;
            let stages = &config.model.stage_names()[range.clone()];
            let states = checkpoint::unpack(head.unwrap_or_default(), stages)
                .map_err(|e| format!("the cloud's head: {e}"))?;
            let optimizer = &config.train.optimizer;
            checkpoint::build_half(&config.model, range, &states, optimizer)
                .map_err(|e| format!("the cloud's head: {e}"))
        };
        let built = self.common.pool.run_patiently(build).await;
        built.map_err(|e| e.to_string()).flatten().map_err(ConversationError::Local)
    }

    /// Measures the group's model on the validation part.
    async fn validate(
        &self,
        cloud: &mut GroupStream,
        validate: v1::Validate,
    ) -> Result<(), ConversationError> {
        let v1::Validate { round, head } = validate;
        let common = &self.common;
        let codec = common.config.activation_codec();
        let mut head = self.head(head).await?;
        let target = common.feed.dataset().target();
        let mut tally = Tally::new(target, common.config.train.loss);
        for indices in common.validation.chunks(VALIDATION_BATCH) {
            let Batch { inputs, labels } = common.feed.batch(indices);
            let job = move || {
                let activation = head.infer(&inputs);
                (head, activation)
            };
            let (back, activation) = self.compute(job).await?;
            head = back;
            let activation = activation.map_err(|e| ConversationError::Local(e.to_string()))?;
            cloud
                .send(Kind::Evaluate(v1::GroupEvaluate {
                    round,
                    activation: wire::encode(activation, codec.as_ref()),
                    labels: Some(wire::encode_labels(labels.clone())),
                }))
                .await?;
            let v1::GroupEvaluated { loss, correct } = match next_of(cloud, round).await? {
                Reply::Evaluated(done) => done,
                // It took too long; the group went on.
                Reply::Void(_) => return Ok(()),
                _ => return Err(cloud.confused()),
            };
            tally.add(&labels, loss, correct).map_err(ConversationError::Local)?;
        }
        if !common.validation.is_empty() {
            let (loss, score) = (tally.loss(), tally.score());
            let validated = Validated { step: round, epoch: round, loss, score };
            let rounds = common.config.train.epochs;
            common.lines.validation(rounds, validated).map_err(ConversationError::Local)?;
        }
        cloud.send(Kind::Validated(v1::Validated { round })).await
    }

    pub(super) async fn compute<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ConversationError> {
        let done = self.common.pool.run_patiently(job).await;
        done.map_err(|e| ConversationError::Local(e.to_string()))
    }
}
