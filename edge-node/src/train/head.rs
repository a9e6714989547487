//! The edge's half in training: stages `0..split`, after a known number of steps.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::{Library, RunStore, TrainingRun, WeightsId},
    codec::Codec,
    compute::ComputePool,
    config::Config,
    model::{HeadPass, Segment, Side},
    wire::{self, NamedTensors, v1},
};

/// Training computes one step at a time; a second job can wait while the first ends.
const QUEUE: usize = 2;

/// A head that learns.
pub struct Head {
    half: TrainingRun,
    activation_codec: &'static dyn Codec,
    gradient_codec: &'static dyn Codec,
    pool: ComputePool,
    /// Taken by the compute thread while it works.
    segment: Option<Segment>,
    live: u64,
}

/// What goes to the cloud, and what is needed when the gradient comes back.
pub struct Forward {
    pub activation: Vec<v1::Tensor>,
    pub pass: Option<HeadPass>,
}

impl Head {
    pub fn new(config: &Config, store: Arc<RunStore>, run: &str) -> Result<Self, String> {
        let library = Library::open(&config.model, store, config.weights.file.as_deref())
            .map_err(|e| format!("weights.file: {e}"))?;
        let half = TrainingRun {
            id: run.into(),
            start: library.initial(config.seed),
            library: Arc::new(library),
            training: config.train.spec(),
            side: Side::Edge,
            range: 0..config.split_point,
        };
        let mut head = Self {
            half,
            activation_codec: config.activation_codec(),
            gradient_codec: config.gradient_codec(),
            pool: ComputePool::new(1, QUEUE),
            segment: None,
            live: 0,
        };
        let newest = head.store().steps(run).last().copied().unwrap_or(0);
        head.restore(newest)?;
        Ok(head)
    }

    /// What the run began with.
    pub fn initial(&self) -> &WeightsId {
        &self.half.start
    }

    /// Steps taken.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Steps that [`Head::rewind`] can go back to.
    pub fn checkpoints(&self) -> Vec<u64> {
        self.store().steps(&self.half.id).into_iter().collect()
    }

    /// Whether the cloud has to send a gradient.
    pub fn wants_gradient(&self) -> bool {
        self.segment.as_ref().is_some_and(Segment::has_parameters)
    }

    /// Goes back to the state after `step`; nothing to do if that is where it is.
    pub fn rewind(&mut self, step: u64) -> Result<(), String> {
        if step == self.live && self.segment.is_some() {
            return Ok(());
        }
        self.store().drop_after(&self.half.id, step).map_err(|e| e.to_string())?;
        self.restore(step)
    }

    fn restore(&mut self, step: u64) -> Result<(), String> {
        self.segment = Some(self.half.restore(step).map_err(|e| e.to_string())?);
        self.live = step;
        Ok(())
    }

    fn store(&self) -> &RunStore {
        self.half.library.store()
    }

    /// The forward pass of a batch; `learn` keeps what the backward pass needs.
    pub async fn forward(&mut self, inputs: NamedTensors, learn: bool) -> Result<Forward, String> {
        let segment = self.take()?;
        let codec = self.activation_codec;
        let job = move || {
            let outcome = match learn {
                true => {
                    segment.head_forward(&inputs).map(|(activation, pass)| (activation, Some(pass)))
                }
                false => segment.infer(&inputs).map(|activation| (activation, None)),
            };
            let outcome = outcome.map(|(activation, pass)| Forward {
                activation: wire::encode(activation, codec),
                pass: pass.filter(|_| segment.has_parameters()),
            });
            (segment, outcome)
        };
        let (segment, outcome) = self.pool.run(job).await.map_err(|e| e.to_string())?;
        self.segment = Some(segment);
        outcome.map_err(|e| e.to_string())
    }

    /// The backward pass and the optimiser's step: this side's commit of the next step.
    pub async fn backward(
        &mut self,
        pass: Option<HeadPass>,
        gradient: Vec<v1::Tensor>,
    ) -> Result<(), String> {
        if let Some(pass) = pass {
            let gradient = wire::decode(gradient, self.gradient_codec)
                .map_err(|e| format!("the cloud's gradient: {e}"))?;
            let mut segment = self.take()?;
            let optimizer = self.half.training.optimizer.clone();
            let job = move || {
                let outcome = segment.head_backward(pass, &gradient, &optimizer);
                (segment, outcome)
            };
            let (segment, outcome) = self.pool.run(job).await.map_err(|e| e.to_string())?;
            self.segment = Some(segment);
            outcome.map_err(|e| format!("the cloud's gradient: {e}"))?;
        }
        self.live += 1;
        Ok(())
    }

    /// Writes this half of the step it is at, and drops the oldest over `keep`.
    pub async fn checkpoint(&self, keep: usize) -> Result<(), String> {
        let segment = self.segment.as_ref().ok_or("a step failed")?;
        let state = segment.state().map_err(|e| e.to_string())?;
        let (half, step) = (self.half.clone(), self.live);
        let written = tokio::task::spawn_blocking(move || half.write(step, &state, keep));
        written.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    fn take(&mut self) -> Result<Segment, String> {
        self.segment.take().ok_or_else(|| "an earlier step failed on this node".into())
    }
}
