//! The edge's half in training: stages `0..split`, and the last ones where labels stay here, after a known
//! number of steps.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use cleave_shared::{
    checkpoint::{RunStore, TrainingRun, WeightsId},
    codec::{Sender, SharedCodec, of_what_was_sent},
    compute::ComputePool,
    config::Config,
    model::{ForwardPass, Segment, Side, Update},
    privacy::{NoiseKey, Shield},
    tensor::HostTensor,
    wire::{self, NamedTensors, v1},
};

use super::RunDir;

/// Training computes one step at a time; a second job can wait while the first ends.
const QUEUE: usize = 2;

/// A head that learns.
pub struct Head {
    half: TrainingRun,
    /// The last stages, from which on they are this node's again, if they are.
    last: Option<usize>,
    activation_codec: SharedCodec,
    gradient_codec: SharedCodec,
    pool: ComputePool,
    shields: Option<Arc<Shields>>,
    /// Taken by the compute thread while it works.
    own: Option<Own>,
    live: u64,
}

/// This node's stages.
struct Own {
    head: Segment,
    last: Option<Segment>,
    activation_codec: SharedCodec,
    gradients: Sender,
}

/// What the last stages made of a micro-batch.
pub struct LastPass {
    pub loss: f32,
    pub correct: u64,
    /// Gradient of the step's loss where the last stages begin.
    pub gradient: Vec<v1::Tensor>,
    /// Begin and end.
    pub times: [Instant; 2],
}

/// What is done to activations before they are sent: those of steps, and those of validations, which come
/// at steps' numbers too.
struct Shields {
    training: Shield,
    validation: Shield,
}

/// What goes to the cloud, and what is needed when the gradient comes back.
pub struct Forward {
    pub activation: Vec<v1::Tensor>,
    pub pass: Option<ForwardPass>,
    /// Begin of the pass, its end, and the end of encoding.
    pub times: [Instant; 3],
}

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose {
    /// No update follows. `first` is the place of the first sample among all that are evaluated.
    Evaluate { first: usize },
    /// A micro-batch of the next step, its first sample, and its share of the loss. With the sample at 0 a
    /// step begins: what was prepared before is forgotten.
    Prepare { first: usize, share: f64 },
}

impl Head {
    pub fn new(config: &Config, dir: &RunDir) -> Result<Self, String> {
        let library = config.library(dir.store.clone())?;
        let half = TrainingRun {
            id: dir.id.clone(),
            start: dir.start.clone().unwrap_or_else(|| library.initial(config.seed)),
            library: Arc::new(library),
            training: config.train.spec(),
            side: Side::Edge,
            range: 0..config.split(),
        };
        let shields = Shields::of(&half)?.map(Arc::new);
        let mut head = Self {
            half,
            last: config.train.topology.last_split,
            shields,
            activation_codec: config.activation_codec(),
            gradient_codec: config.gradient_codec(),
            pool: ComputePool::new(1, QUEUE, config.edge.machine()),
            own: None,
            live: 0,
        };
        let newest = head.store().steps(&dir.id).last().copied().unwrap_or(0);
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
        self.own.as_ref().is_some_and(|own| own.head.has_parameters())
    }

    /// Whether the last stages are here, and with them the labels.
    pub fn has_last(&self) -> bool {
        self.last.is_some()
    }

    /// Goes back to the state after `step`; nothing to do if that is where it is.
    pub fn rewind(&mut self, step: u64) -> Result<(), String> {
        if step == self.live && self.own.is_some() {
            return Ok(());
        }
        self.store().drop_after(&self.half.id, step).map_err(|e| e.to_string())?;
        self.restore(step)
    }

    fn restore(&mut self, step: u64) -> Result<(), String> {
        let head = self.half.restore(step).map_err(|e| e.to_string())?;
        let restore = |from| {
            let range = from..self.half.library.spec().stage_count();
            TrainingRun { range, ..self.half.clone() }.restore(step)
        };
        let last = self.last.map(restore).transpose().map_err(|e| e.to_string())?;
        let left_out = self.half.left_out(step).map_err(|e| e.to_string())?;
        let activation_codec = self.activation_codec.clone();
        let gradients = Sender::new(self.gradient_codec.clone(), left_out);
        self.own = Some(Own { head, last, activation_codec, gradients });
        self.live = step;
        Ok(())
    }

    fn store(&self) -> &RunStore {
        self.half.library.store()
    }

    /// The forward pass of a batch.
    pub async fn forward(
        &mut self,
        inputs: NamedTensors,
        purpose: Purpose,
    ) -> Result<Forward, String> {
        let live = self.live;
        let shields = self.shields.clone();
        let job = move |own: &mut Own| {
            let begin = Instant::now();
            let segment = &mut own.head;
            let outcome = match purpose {
                Purpose::Evaluate { first } => segment.infer(&inputs).and_then(|activation| {
                    let sent = match &shields {
                        Some(shields) => shields.validation.apply_host(activation, live, first)?,
                        None => activation,
                    };
                    Ok((sent, None))
                }),
                Purpose::Prepare { first, share } => {
                    if first == 0 {
                        segment.forget();
                        own.gradients.forget();
                        if let Some(last) = &mut own.last {
                            last.forget();
                        }
                    }
                    let sent =
                        segment.forward_protected(&inputs, false, |input, output| match &shields {
                            Some(s) => s.training.protect(input, output, live + 1, first, share),
                            None => (output, None),
                        });
                    sent.map(|(activation, pass)| (activation, Some(pass)))
                }
            };
            let computed = Instant::now();
            let codec = own.activation_codec.as_ref();
            outcome.map(|(activation, pass)| Forward {
                activation: wire::encode(activation, codec),
                pass: pass.filter(|_| segment.has_parameters()),
                times: [begin, computed, Instant::now()],
            })
        };
        self.compute(job).await?.map_err(|e| e.to_string())
    }

    /// The last stages' part of micro-batch `index`, from what the cloud's stages made of it.
    pub async fn last_pass(
        &mut self,
        index: u32,
        activation: Vec<v1::Tensor>,
        labels: HostTensor,
        share: f64,
    ) -> Result<LastPass, String> {
        let (loss, step) = (self.half.training.loss, self.live + 1);
        let job = move |own: &mut Own| {
            let begin = Instant::now();
            let codec = own.activation_codec.as_ref();
            let activation = wire::decode(activation, codec).map_err(|e| e.to_string())?;
            let last = own.last.as_mut().ok_or("the last stages are not here")?;
            let done = last.loss_pass(&activation, &labels, loss, share, true);
            let mut done = done.map_err(|e| e.to_string())?;
            if own.activation_codec.is_sparse() {
                done.gradient = of_what_was_sent(done.gradient, &activation);
            }
            let encode = |name: &str, tensor| own.gradients.encode(name, tensor, step, index);
            let gradient = wire::encode_with(done.gradient, encode);
            let times = [begin, Instant::now()];
            Ok(LastPass { loss: done.loss, correct: done.correct, gradient, times })
        };
        let outcome: Result<_, String> = self.compute(job).await?;
        outcome.map_err(|e| format!("the cloud's activation: {e}"))
    }

    /// Loss and right answers of a batch that the cloud's stages have been through, without an update.
    pub async fn last_evaluate(
        &mut self,
        activation: Vec<v1::Tensor>,
        labels: HostTensor,
    ) -> Result<(f32, u64), String> {
        let loss = self.half.training.loss;
        let job = move |own: &mut Own| {
            let codec = own.activation_codec.as_ref();
            let activation = wire::decode(activation, codec).map_err(|e| e.to_string())?;
            let last = own.last.as_ref().ok_or("the last stages are not here")?;
            last.evaluate(&activation, &labels, loss).map_err(|e| e.to_string())
        };
        let outcome = self.compute(job).await?;
        outcome.map_err(|e| format!("the cloud's activation: {e}"))
    }

    /// The backward pass of a micro-batch; gives its begin, the end of decoding, and its end.
    pub async fn backward(
        &mut self,
        pass: ForwardPass,
        gradient: Vec<v1::Tensor>,
    ) -> Result<[Instant; 3], String> {
        let job = move |own: &mut Own| {
            let begin = Instant::now();
            let codec = own.gradients.codec();
            let gradient = wire::decode(gradient, codec.as_ref()).map_err(|e| e.to_string())?;
            let decoded = Instant::now();
            own.head.backward(pass, &gradient).map_err(|e| e.to_string())?;
            Ok([begin, decoded, Instant::now()])
        };
        let outcome: Result<_, String> = self.compute(job).await?;
        outcome.map_err(|e| format!("the cloud's gradient: {e}"))
    }

    /// Sum of the squares of the gradients of the step that is prepared.
    pub async fn gradient_square(&mut self) -> Result<f64, String> {
        let job = |own: &mut Own| {
            let of_last = own.last.as_ref().map_or(0.0, Segment::gradient_square);
            own.head.gradient_square() + of_last
        };
        self.compute(job).await
    }

    /// Applies the step that is prepared.
    pub async fn commit(&mut self, update: Update) -> Result<(), String> {
        let optimizer = self.half.training.optimizer.clone();
        let job = move |own: &mut Own| {
            own.head.commit(&optimizer, update);
            if let Some(last) = &mut own.last {
                last.commit(&optimizer, update);
            }
            own.gradients.commit();
        };
        self.compute(job).await?;
        self.live += 1;
        Ok(())
    }

    /// Writes this half of the step it is at.
    pub async fn checkpoint(&self) -> Result<(), String> {
        let own = self.own.as_ref().ok_or("a step failed")?;
        let mut state = own.head.state().map_err(|e| e.to_string())?;
        if let Some(last) = &own.last {
            state.extend(last.state().map_err(|e| e.to_string())?);
        }
        let left_out = own.gradients.left_out();
        let (half, step) = (self.half.clone(), self.live);
        let written = tokio::task::spawn_blocking(move || half.write(step, state, left_out));
        written.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    /// Removes the checkpoints that neither side needs, `of_cloud` being those on the cloud's disk.
    pub fn retain(&self, keep: usize, of_cloud: &BTreeSet<u64>) -> Result<(), String> {
        self.store().retain(&self.half.id, keep, of_cloud).map_err(|e| e.to_string())
    }

    /// Has the compute thread work on this node's stages.
    async fn compute<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Own) -> T + Send + 'static,
    ) -> Result<T, String> {
        let mut own = self.own.take().ok_or("an earlier step failed on this node")?;
        let job = move || {
            let done = work(&mut own);
            (own, done)
        };
        let (own, done) = self.pool.run(job).await.map_err(|e| e.to_string())?;
        self.own = Some(own);
        Ok(done)
    }
}

impl Shields {
    /// As the run's privacy asks for, with the key of the run's folder.
    fn of(half: &TrainingRun) -> Result<Option<Self>, String> {
        let Some(spec) = &half.training.privacy else { return Ok(None) };
        let path = half.library.store().run_dir(&half.id).join("noise.key");
        let key = NoiseKey::load_or_create(&path).map_err(|e| e.to_string())?;
        let validation = Shield::new(spec, key.derive("validation"));
        Ok(Some(Self { training: Shield::new(spec, key), validation }))
    }
}
