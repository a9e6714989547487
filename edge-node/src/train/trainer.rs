//! The run: steps, validations and checkpoints in their order, whatever breaks in between.

use std::time::{Duration, Instant};

use cleave_shared::{
    checkpoint::write_atomic,
    config::{Config, MicroBatches},
    data::{Batch, BatchPlan, Feed, Part, Split},
    link::Link,
    model::Update,
    session::clip_scale,
    shutdown::Ending,
    wire::{self, v1},
};

use super::{
    ConversationError, Observer, RunDir, Score, Tally, Timeline, Validated, Verdict,
    conversation::Conversation,
    depth,
    head::{Head, Purpose},
    interruption::Interruption,
    metrics::{Line, Metrics, Stepped},
    micro_batch::cut,
    patience::Patience,
    pipeline::{Pipeline, Summary},
    progress::Progress,
    timeline::{Lane, Span},
};
use crate::cloud::CloudClient;

/// Samples of one validation request.
pub const VALIDATION_BATCH: usize = 256;

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

impl Outcome {
    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let Self { run, steps, validated, stopped, elapsed, uplink_bytes, downlink_bytes } = self;
        serde_json::json!({
            "run": run,
            "steps": steps,
            "validation": validated,
            "stopped": stopped,
            "seconds": elapsed.as_secs_f64(),
            "uplink_bytes": uplink_bytes,
            "downlink_bytes": downlink_bytes,
        })
    }
}

pub struct Trainer<'a> {
    config: &'a Config,
    feed: Feed,
    plan: BatchPlan,
    validation: Vec<usize>,
    head: Head,
    metrics: Metrics,
    timeline: Timeline,
    progress: Progress,
    dir: RunDir,
    client: CloudClient,
    link: Link,
    total: u64,
    /// Parts of a step; none until they are chosen.
    micro_batches: Option<u32>,
    /// How the newest step was committed, for a cloud that did not hear of it.
    committed: Option<v1::TrainCommit>,
    observer: Option<Observer>,
    stopped: bool,
    interruption: Interruption,
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
        let head = Head::new(config, &dir)?;
        let metrics = Metrics::open(&dir.path, head.live())?;
        let timeline = Timeline::open(&dir.path, head.live())?;
        let total = plan.steps_per_epoch() * config.train.epochs;
        let micro_batches = match config.train.micro_batches {
            MicroBatches::Fixed(n) => Some(n),
            // What a run that is resumed has chosen before.
            MicroBatches::Auto => metrics.micro_batches(),
        };
        let progress = Progress::new(&dir.id, head.live(), total, observer.is_some());
        let validation = split.indices(Part::Validation).to_vec();
        Ok(Self {
            config,
            feed,
            plan,
            validation,
            head,
            metrics,
            timeline,
            progress,
            dir,
            client,
            link,
            total,
            micro_batches,
            committed: None,
            observer,
            stopped: false,
            interruption: Interruption::by(Ending::never()),
        })
    }

    /// Has the run end early, with a checkpoint, when the process is asked to.
    pub fn until(self, ending: Ending) -> Self {
        Self { interruption: Interruption::by(ending), ..self }
    }

    /// Runs to the end, through as many connections as it takes; a run that is interrupted is an error.
    pub async fn run(&mut self) -> Result<Outcome, String> {
        let begin = Instant::now();
        let seconds = self.config.train.reconnect_timeout_s;
        let mut patience = Patience::new(seconds);
        loop {
            let before = self.head.live();
            let text = match self.connect_and_go_on().await {
                Ok(()) => break,
                Err(ConversationError::Lost(text)) => text,
                Err(fatal) => return Err(fatal.to_string()),
            };
            if self.interruption.look() {
                return Err(self.leave(&text).await);
            }
            if self.head.live() != before {
                patience.renew();
            }
            if patience.is_over() {
                let run = &self.dir.id;
                return Err(format!(
                    "{text}; gave up after {seconds} s (train.reconnect_timeout_s); continue with \
                     train --resume --run {run}"
                ));
            }
            self.progress.say(&format!("{text}; trying again"));
            tokio::select! {
                () = patience.pause() => {}
                () = self.interruption.asked() => return Err(self.leave(&text).await),
            }
        }
        self.progress.finish();
        if self.interruption.is_noticed() {
            return Err(self.interrupted("which is kept"));
        }
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
        let opening = Conversation::open(&self.client, self.opening(), patience);
        let (mut cloud, resume) = tokio::select! {
            opened = opening => opened?,
            // Nothing depends on it: it has changed nothing here.
            () = self.interruption.asked() => {
                let address = self.client.address();
                let text = format!("the cloud at {address} had not opened the run yet");
                return Err(ConversationError::Lost(text));
            }
        };
        if resume != self.head.live() {
            let live = self.head.live();
            self.progress.say(&format!("at step {live}, going back to step {resume}"));
            self.head.rewind(resume).map_err(ConversationError::Local)?;
            self.metrics.rewind(resume).map_err(ConversationError::Local)?;
            self.timeline.rewind(resume).map_err(ConversationError::Local)?;
            self.progress.rewind(resume);
        }
        self.timeline.forget_open();
        self.observe_again();
        // What is due may be so since before a connection broke.
        self.validate_if_due(&mut cloud).await?;
        self.checkpoint_if_due(&mut cloud).await?;
        while !self.is_at_end() && !self.interruption.look() {
            self.step(&mut cloud).await?;
            self.validate_if_due(&mut cloud).await?;
            self.checkpoint_if_due(&mut cloud).await?;
        }
        if self.interruption.is_noticed() {
            self.checkpoint_if_due(&mut cloud).await?;
        }
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        self.head.live() >= self.total || self.stopped
    }

    /// Whether this process takes no more steps.
    fn ends_here(&self) -> bool {
        self.is_at_end() || self.interruption.is_noticed()
    }

    /// Ends without the cloud, and keeps this half alone: a cloud that was asked to end as well has kept the
    /// other. Not at the last step, though: to hold that means that the cloud has it too, and that it can be deployed.
    async fn leave(&mut self, lost: &str) -> String {
        let step = self.head.live();
        let is_new = step > 0 && !self.is_at_end() && !self.head.checkpoints().contains(&step);
        let written = match is_new {
            true => self.head.checkpoint().await,
            false => Ok(()),
        };
        self.progress.finish();
        match written {
            Ok(()) => self.interrupted(&format!("without the cloud ({lost})")),
            Err(problem) => self.interrupted(&format!("which was not written: {problem}")),
        }
    }

    fn interrupted(&self, how: &str) -> String {
        let (step, run) = (self.head.live(), &self.dir.id);
        format!("interrupted at step {step}, {how}; go on with train --resume --run {run}")
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
        let agreement = config.agreement(config.split(), &weights);
        v1::TrainOpen {
            agreement: Some(agreement),
            run: self.dir.id.clone(),
            training: config.train.spec().canonical(),
            live_step: self.head.live(),
            checkpoints: self.head.checkpoints(),
            commit: self.committed.filter(|commit| commit.id == self.head.live()),
            last_split: config.train.topology.last_split.map(|last| last as u32),
        }
    }

    /// Prepares the next step and commits it, here first: the cloud hears of it with the next message.
    async fn step(&mut self, cloud: &mut Conversation) -> Result<(), ConversationError> {
        let id = self.head.live() + 1;
        let parts = self.parts(cloud, id).await?;
        let begin = Instant::now();
        let micro_batches = cut(&self.feed, &self.plan.batch(id), parts);
        let micro_batches = micro_batches.map_err(ConversationError::Local)?;
        let mut tally = self.tally();
        let summary = self.pipeline(cloud).prepare(id, &micro_batches, &mut tally).await?;
        let (update, norm) = self.update(id, &summary).await.map_err(ConversationError::Local)?;
        let updating = Instant::now();
        self.head.commit(update).await.map_err(ConversationError::Local)?;
        let clock = self.timeline.clock();
        let (start_ms, end_ms) = (clock.ms(updating), clock.now_ms());
        self.timeline.add(Span { step: id, micro_batch: 0, lane: Lane::Update, start_ms, end_ms });
        let Update { learning_rate, scale } = update;
        let commit = v1::TrainCommit { id, learning_rate, scale };
        self.committed = Some(commit);
        // The step is taken, and noted, even if the connection breaks here: the next one begins with this commit.
        let sent = cloud.commit(commit).await;
        let score = Score { perplexity: None, r2: None, ..tally.score() };
        let bytes = self.link.counters();
        let overlap = self.timeline.end(id).map_err(ConversationError::Local)?;
        self.note(Stepped {
            step: id,
            epoch: self.plan.epoch_of(id),
            loss: summary.loss as f32,
            score,
            head_ms: summary.head_ms,
            link_ms: summary.link_ms,
            tail_ms: summary.tail_ms,
            step_ms: ms(begin),
            overlap,
            micro_batches: micro_batches.len() as u32,
            learning_rate,
            gradient_norm: norm,
            uplink_bytes: bytes.uplink.accepted_bytes,
            downlink_bytes: bytes.downlink.delivered_bytes,
        })?;
        sent
    }

    fn pipeline<'p>(&'p mut self, cloud: &'p mut Conversation) -> Pipeline<'p> {
        Pipeline { client: &self.client, head: &mut self.head, cloud, timeline: &mut self.timeline }
    }

    /// How many micro-batches a step has; the first time it may have to be measured.
    async fn parts(&mut self, cloud: &mut Conversation, id: u64) -> Result<u32, ConversationError> {
        if let Some(parts) = self.micro_batches {
            return Ok(parts);
        }
        let indices = self.plan.batch(id);
        let (feed, mut tally) = (self.feed.clone(), self.tally());
        let mut pipeline = self.pipeline(cloud);
        let measured = depth::measure(&mut pipeline, id, &feed, &indices, &mut tally).await?;
        self.timeline.forget_open();
        self.progress.say(&measured.to_string());
        self.micro_batches = Some(measured.best());
        Ok(measured.best())
    }

    /// How a prepared step is applied, and the norm of its gradient if the run clips it.
    async fn update(
        &mut self,
        id: u64,
        summary: &Summary,
    ) -> Result<(Update, Option<f64>), String> {
        let train = &self.config.train;
        let rate = train.optimizer.learning_rate() * train.schedule.factor(id, self.total);
        let Some(most) = train.clip_norm else { return Ok((Update::at(rate), None)) };
        let square = summary.cloud_square + self.head.gradient_square().await?;
        let update = Update { learning_rate: rate, scale: clip_scale(square, Some(most)) };
        Ok((update, Some(square.sqrt())))
    }

    fn note(&mut self, stepped: Stepped) -> Result<(), ConversationError> {
        self.metrics.write(&Line::Step(stepped)).map_err(ConversationError::Local)?;
        self.progress.step(&stepped);
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
        for (i, indices) in self.validation.chunks(VALIDATION_BATCH).enumerate() {
            // It is due again when the run goes on.
            if self.interruption.look() {
                return Ok(());
            }
            let Batch { inputs, labels } = self.feed.batch(indices);
            let purpose = Purpose::Evaluate { first: i * VALIDATION_BATCH };
            let forward = self.head.forward(inputs, purpose).await;
            let forward = forward.map_err(ConversationError::Local)?;
            let activation = forward.activation;
            let (loss, correct) = match self.head.has_last() {
                true => {
                    let batch = v1::TrainEvaluate { activation, labels: None };
                    let activation = cloud.forwarded(batch).await?.activation;
                    let done = self.head.last_evaluate(activation, labels.clone()).await;
                    done.map_err(ConversationError::Local)?
                }
                false => {
                    let sent = Some(wire::encode_labels(labels.clone()));
                    let batch = v1::TrainEvaluate { activation, labels: sent };
                    let done = cloud.evaluate(batch).await?;
                    (done.loss, done.correct)
                }
            };
            let added = tally.add(&labels, loss, correct);
            added.map_err(ConversationError::Local)?;
        }
        let validated = Validated { step, epoch, loss: tally.loss(), score: tally.score() };
        let written = self.metrics.write(&Line::Validation(validated));
        written.map_err(ConversationError::Local)?;
        self.progress.epoch(self.config.train.epochs, &validated);
        self.account(epoch).map_err(ConversationError::Local)?;
        self.observe(&validated);
        Ok(())
    }

    /// Now and then, and at the end, the early one too.
    async fn checkpoint_if_due(
        &mut self,
        cloud: &mut Conversation,
    ) -> Result<(), ConversationError> {
        let step = self.head.live();
        let due = self.ends_here() || step.is_multiple_of(self.config.train.checkpoint_every);
        if !due || step == 0 {
            return Ok(());
        }
        let held = self.head.checkpoints();
        match held.contains(&step) {
            true => Ok(()),
            false => self.checkpoint(cloud, held).await,
        }
    }

    /// Says what the noise is worth after this many epochs, each of which sent each sample once, and
    /// keeps it as `privacy.json` in the run's folder.
    fn account(&self, epoch: u64) -> Result<(), String> {
        let Some(privacy) = &self.config.train.privacy else { return Ok(()) };
        let Some(epsilon) = privacy.epsilon(epoch) else { return Ok(()) };
        let delta = privacy.delta();
        self.progress
            .say(&format!("privacy of a sample's activations: ε {epsilon:.2} at δ {delta:e}"));
        let spent = serde_json::json!({ "epochs": epoch, "epsilon": epsilon, "delta": delta });
        let bytes = serde_json::to_vec_pretty(&spent).expect("plain data");
        write_atomic(&self.dir.path.join("privacy.json"), &bytes).map_err(|e| e.to_string())
    }

    /// Cloud first: a step that the edge has on disk, the cloud has as well unless it lost it, or the edge left
    /// without it. A disk that does not take it costs a warning, since older checkpoints are kept, but a run
    /// cannot end so.
    /// `held` are the steps on this node's disk.
    async fn checkpoint(
        &mut self,
        cloud: &mut Conversation,
        held: Vec<u64>,
    ) -> Result<(), ConversationError> {
        let step = self.head.live();
        let answer = cloud.checkpoint(step, held).await?;
        let written = match answer.problem {
            problem if !problem.is_empty() => Err(format!("the cloud: {problem}")),
            _ => self.head.checkpoint().await.and_then(|()| {
                let of_cloud = answer.held.into_iter().collect();
                self.head.retain(self.config.train.keep_checkpoints, &of_cloud)
            }),
        };
        let Err(problem) = written else { return Ok(()) };
        let text = format!("checkpoint of step {step} was not written: {problem}");
        if self.ends_here() {
            return Err(ConversationError::Local(text));
        }
        self.progress.say(&format!("{text}; the run goes on, and tries again at the next one"));
        Ok(())
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
