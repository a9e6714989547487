//! The run: steps, validations and checkpoints in their order, whatever breaks in between.

use std::time::{Duration, Instant};

use cleave_shared::{
    config::Config,
    data::{Batch, BatchPlan, Feed, Part, Split},
    link::Link,
    wire::{self, v1},
};

use super::{
    ConversationError, Observer, RunDir, Score, Tally, Validated, Verdict,
    conversation::Conversation,
    head::Head,
    metrics::{Line, Metrics, Stepped},
    progress::Progress,
};
use crate::cloud::CloudClient;

/// Samples of one validation request.
const VALIDATION_BATCH: usize = 256;
/// Pauses between attempts to reach a lost cloud: doubled each time, within these.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub run: String,
    pub steps: u64,
    /// The last validation.
    pub validated: Option<Validated>,
    /// Ended before its last epoch because its observer said so.
    pub stopped: bool,
    pub elapsed: Duration,
    pub uplink_bytes: u64,
    pub downlink_bytes: u64,
}

pub struct Trainer<'a> {
    config: &'a Config,
    feed: Feed,
    plan: BatchPlan,
    validation: Vec<usize>,
    head: Head,
    metrics: Metrics,
    progress: Progress,
    dir: RunDir,
    client: CloudClient,
    link: Link,
    total: u64,
    observer: Option<Observer>,
    stopped: bool,
}

impl<'a> Trainer<'a> {
    pub fn new(
        config: &'a Config,
        feed: Feed,
        split: &Split,
        dir: RunDir,
        client: CloudClient,
        link: Link,
        observer: Option<Observer>,
    ) -> Result<Self, String> {
        let indices = split.indices(Part::Train).to_vec();
        let plan = BatchPlan::new(indices, config.train.batch_size, config.seed)
            .map_err(|e| e.to_string())?;
        let head = Head::new(config, dir.store.clone(), &dir.id)?;
        let metrics = Metrics::open(&dir.path, head.live())?;
        let total = plan.steps_per_epoch() * config.train.epochs;
        let progress = Progress::new(&dir.id, head.live(), total, observer.is_some());
        let validation = split.indices(Part::Validation).to_vec();
        Ok(Self {
            config,
            feed,
            plan,
            validation,
            head,
            metrics,
            progress,
            dir,
            client,
            link,
            total,
            observer,
            stopped: false,
        })
    }

    /// Runs to the end, through as many connections as it takes.
    pub async fn run(&mut self) -> Result<Outcome, String> {
        let begin = Instant::now();
        let (mut lost_since, mut pause) = (None, SHORTEST_PAUSE);
        let patience = Duration::from_secs(self.config.train.reconnect_timeout_s);
        loop {
            let before = self.head.live();
            let text = match self.connect_and_go_on().await {
                Ok(()) => break,
                Err(ConversationError::Lost(text)) => text,
                Err(fatal) => return Err(fatal.to_string()),
            };
            if self.head.live() != before {
                (lost_since, pause) = (None, SHORTEST_PAUSE);
            }
            let since = *lost_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= patience {
                let (run, seconds) = (&self.dir.id, patience.as_secs());
                return Err(format!(
                    "{text}; gave up after {seconds} s (train.reconnect_timeout_s); continue with \
                     train --resume --run {run}"
                ));
            }
            self.progress.say(&format!("{text}; trying again"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.progress.finish();
        let bytes = self.link.counters();
        Ok(Outcome {
            run: self.dir.id.clone(),
            steps: self.head.live(),
            validated: self.metrics.validated().last().copied(),
            stopped: self.stopped,
            elapsed: begin.elapsed(),
            uplink_bytes: bytes.uplink.accepted_bytes,
            downlink_bytes: bytes.downlink.delivered_bytes,
        })
    }

    async fn connect_and_go_on(&mut self) -> Result<(), ConversationError> {
        let patience = Duration::from_secs(self.config.train.step_timeout_s);
        let (mut cloud, resume) =
            Conversation::open(&self.client, self.opening(), patience).await?;
        if resume != self.head.live() {
            let live = self.head.live();
            self.progress.say(&format!("at step {live}, going back to step {resume}"));
            self.head.rewind(resume).map_err(ConversationError::Local)?;
            self.metrics.rewind(resume).map_err(ConversationError::Local)?;
            self.progress.rewind(resume);
        }
        self.observe_again();
        self.validate_if_due(&mut cloud).await?;
        while self.head.live() < self.total && !self.stopped {
            self.step(&mut cloud).await?;
            self.validate_if_due(&mut cloud).await?;
            let live = self.head.live();
            let last = live == self.total || self.stopped;
            if live.is_multiple_of(self.config.train.checkpoint_every) || last {
                self.checkpoint(&mut cloud).await?;
            }
        }
        Ok(())
    }

    /// Tells the observer what the run had come to before this process or connection.
    fn observe_again(&mut self) {
        for validated in self.metrics.validated().to_vec() {
            self.observe(&validated);
        }
    }

    fn observe(&mut self, validated: &Validated) {
        let verdict = self.observer.as_mut().map(|observer| observer(validated));
        self.stopped |= verdict == Some(Verdict::Stop);
    }

    /// Nothing added up yet.
    fn tally(&self) -> Tally {
        Tally::new(self.feed.dataset().target(), self.config.train.loss)
    }

    fn opening(&self) -> v1::TrainOpen {
        let config = self.config;
        let weights = self.head.initial().to_string();
        let agreement = config.agreement(config.split_point, &weights);
        v1::TrainOpen {
            agreement: Some(agreement),
            run: self.dir.id.clone(),
            training: config.train.spec().canonical(),
            live_step: self.head.live(),
            checkpoints: self.head.checkpoints(),
        }
    }

    async fn step(&mut self, cloud: &mut Conversation) -> Result<(), ConversationError> {
        let begin = Instant::now();
        let id = self.head.live() + 1;
        let Batch { inputs, labels } = self.feed.batch(&self.plan.batch(id));
        let want_gradient = self.head.wants_gradient();
        let forward = self.head.forward(inputs, true).await.map_err(ConversationError::Local)?;
        let forward_ms = ms(begin);
        let sent = Instant::now();
        let mut tally = self.tally();
        let sent_labels = Some(wire::encode_labels(labels.clone(), self.config.activation_codec()));
        let step = v1::TrainStep {
            id,
            activation: forward.activation,
            labels: sent_labels,
            want_gradient,
        };
        let stepped = cloud.step(step).await?;
        let away_ms = ms(sent);
        let back = Instant::now();
        let committed = self.head.backward(forward.pass, stepped.gradient).await;
        committed.map_err(ConversationError::Local)?;
        let added = tally.add(&labels, stepped.loss, stepped.correct);
        added.map_err(ConversationError::Local)?;
        let score = Score { perplexity: None, r2: None, ..tally.score() };
        let bytes = self.link.counters();
        let line = Stepped {
            step: id,
            epoch: self.plan.epoch_of(id),
            loss: stepped.loss,
            score,
            head_ms: forward_ms + ms(back),
            link_ms: (away_ms - stepped.tail_ms).max(0.0),
            tail_ms: stepped.tail_ms,
            step_ms: ms(begin),
            overlap: None,
            micro_batches: 1,
            learning_rate: self.config.train.optimizer.learning_rate(),
            gradient_norm: None,
            uplink_bytes: bytes.uplink.accepted_bytes,
            downlink_bytes: bytes.downlink.delivered_bytes,
        };
        self.metrics.write(&Line::Step(line)).map_err(ConversationError::Local)?;
        self.progress.step(&line);
        Ok(())
    }

    /// At the end of an epoch, unless this epoch was validated before a connection broke.
    async fn validate_if_due(&mut self, cloud: &mut Conversation) -> Result<(), ConversationError> {
        let step = self.head.live();
        let epoch = step / self.plan.steps_per_epoch();
        let at_end = step.is_multiple_of(self.plan.steps_per_epoch()) && epoch > 0;
        if !at_end || self.metrics.has_validated(epoch) || self.validation.is_empty() {
            return Ok(());
        }
        let mut tally = self.tally();
        for indices in self.validation.chunks(VALIDATION_BATCH) {
            let Batch { inputs, labels } = self.feed.batch(indices);
            let forward =
                self.head.forward(inputs, false).await.map_err(ConversationError::Local)?;
            let sent = Some(wire::encode_labels(labels.clone(), self.config.activation_codec()));
            let batch = v1::TrainEvaluate { activation: forward.activation, labels: sent };
            let done = cloud.evaluate(batch).await?;
            let added = tally.add(&labels, done.loss, done.correct);
            added.map_err(ConversationError::Local)?;
        }
        let validated = Validated { step, epoch, loss: tally.loss(), score: tally.score() };
        let written = self.metrics.write(&Line::Validation(validated));
        written.map_err(ConversationError::Local)?;
        self.progress.epoch(self.config.train.epochs, &validated);
        self.observe(&validated);
        Ok(())
    }

    /// Cloud first: a step that the edge has on disk, the cloud has as well unless it lost it.
    async fn checkpoint(&mut self, cloud: &mut Conversation) -> Result<(), ConversationError> {
        cloud.checkpoint(self.head.live()).await?;
        let keep = self.config.train.keep_checkpoints;
        self.head.checkpoint(keep).await.map_err(ConversationError::Local)
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
