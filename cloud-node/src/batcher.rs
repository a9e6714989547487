//! Tails of requests that wait at the same time are run together.
//!
//! Nobody waits for a batch to fill, unless the configuration says so: what has gathered while the threads were busy is the
//! batch. A request adds itself to the queue and sees to it that the compute pool has a turn for each that waits; a turn
//! takes whatever is due then.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cleave_shared::{
    codec::{F32, SharedCodec},
    compute::{ComputeError, ComputePool, Estimate},
    deadline::Deadline,
    model::Segment,
    wire::{self, NamedTensors, v1},
};
use tokio::sync::oneshot;
use tonic::Status;

use crate::{
    fair_queue::FairQueue,
    handshake::Cut,
    inference::ms_since,
    service::{compute_status, model_status},
};

/// One request's activation, and the tail that it is for.
pub struct Asked {
    pub cut: Cut,
    pub tail: Arc<Segment>,
    pub codec: SharedCodec,
    pub activation: Vec<v1::Tensor>,
    /// By when its answer has to be there.
    pub by: Option<Deadline>,
}

/// Where requests wait for a thread.
#[derive(Clone)]
pub struct Batcher {
    pool: ComputePool,
    waiting: Arc<Mutex<Queue>>,
    /// Samples of one batch.
    most: usize,
    delay: Duration,
    /// What a batch takes.
    usual: Arc<Estimate>,
}

/// Who waits, and how many turns are on their way: as many, or more where some are answered together or have left. A turn
/// for each request instead would fill the pool with turns of requests that are answered.
#[derive(Default)]
struct Queue {
    requests: FairQueue<Kind, Waiting>,
    turns: usize,
}

impl Queue {
    /// Whether a turn has to be started, which then counts.
    fn needs_turn(&mut self) -> bool {
        let needs = self.turns < self.requests.waiting();
        self.turns += usize::from(needs);
        needs
    }
}

/// What can be one batch: the same tail, and tensors that differ in nothing but the number of samples.
#[derive(Debug, PartialEq)]
struct Kind {
    cut: Cut,
    /// Name, element type, and the shape of one sample.
    tensors: Vec<(String, i32, Vec<u64>)>,
}

struct Waiting {
    asked: Asked,
    samples: usize,
    since: Instant,
    /// Whether threads were busy when it came.
    behind: bool,
    reply: oneshot::Sender<Result<v1::InferReply, Status>>,
}

/// One that was decoded, and what is still needed of it.
struct Decoded {
    waiting: Waiting,
    input: NamedTensors,
    queue_ms: f64,
}

impl Batcher {
    /// Batches of at most so many samples, for which the first may wait so long.
    pub fn new(pool: ComputePool, most: usize, delay: Duration) -> Self {
        // There from the start, so that the first batch is a rate.
        batched().increment(0);
        Self { pool, waiting: Arc::default(), most, delay, usual: Arc::default() }
    }

    /// The tail's output, as it is sent; an edge's requests are answered in their order, and edges in turn.
    pub async fn run(&self, edge: &str, asked: Asked) -> Result<v1::InferReply, Status> {
        let (reply, answer) = oneshot::channel();
        let (samples, kind) = Kind::of(&asked);
        let (since, behind) = (Instant::now(), self.pool.is_busy());
        let waiting = Waiting { asked, samples, since, behind, reply };
        let ticket = locked(&self.waiting).requests.push(edge, kind, samples, waiting);
        let place = Place { waiting: self.waiting.clone(), ticket };
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        if let Err(error) = self.start_turn()
            && place.give_up()
        {
            return Err(compute_status(error));
        }
        // A panic took the sender with it.
        answer.await.unwrap_or_else(|_| Err(Status::internal("the tail's computation failed")))
    }

    /// If there is not one for each request that waits.
    fn start_turn(&self) -> Result<(), ComputeError> {
        if !locked(&self.waiting).needs_turn() {
            return Ok(());
        }
        let this = self.clone();
        let started = self.pool.submit(move || this.turn());
        started.inspect_err(|_| locked(&self.waiting).turns -= 1)
    }

    /// Runs what is due.
    fn turn(&self) {
        let due = {
            let mut waiting = locked(&self.waiting);
            waiting.turns -= 1;
            waiting.requests.take(self.most)
        };
        let begin = Instant::now();
        let usual = self.usual.upper();
        let mut batch = Vec::with_capacity(due.len());
        for waiting in due {
            let late = waiting.behind && waiting.asked.by.is_some_and(|by| by.left() <= usual);
            if let Some(decoded) = if late { waiting.refuse() } else { waiting.decode(begin) } {
                batch.push(decoded);
            }
        }
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        if count > 1 && together(&mut batch, begin) {
            batched().increment(count);
        }
        // Nothing is left of a batch that was answered.
        batch.into_iter().for_each(|one| one.alone(begin));
        self.usual.observe(begin.elapsed());
    }
}

fn batched() -> metrics::Counter {
    metrics::counter!("cleave_batched_requests_total")
}

impl Kind {
    /// The number of samples, and what else the tensors say of themselves. That all have as many samples, and some, was
    /// checked with the ports of the cut; what lies about its bytes is found out when it is decoded.
    fn of(asked: &Asked) -> (usize, Self) {
        let activation = &asked.activation;
        let batch = activation.first().and_then(|t| t.shape.first()).copied().unwrap_or(0);
        let sample = |t: &v1::Tensor| t.shape.get(1..).unwrap_or_default().to_vec();
        let tensors = activation.iter().map(|t| (t.name.clone(), t.dtype, sample(t))).collect();
        let samples = usize::try_from(batch).unwrap_or(usize::MAX);
        (samples, Self { cut: asked.cut.clone(), tensors })
    }
}

impl Waiting {
    fn refuse(self) -> Option<Decoded> {
        let waited_ms = self.since.elapsed().as_millis() as u64;
        let _ = self.reply.send(Err(compute_status(ComputeError::Late { waited_ms })));
        None
    }

    fn decode(mut self, begin: Instant) -> Option<Decoded> {
        // Its edge has gone meanwhile.
        if self.reply.is_closed() {
            return None;
        }
        let queue_ms = ms_between(self.since, begin);
        let activation = std::mem::take(&mut self.asked.activation);
        match wire::decode(activation, self.asked.codec.as_ref()) {
            Ok(input) => Some(Decoded { waiting: self, input, queue_ms }),
            Err(error) => {
                let _ = self.reply.send(Err(error.into()));
                None
            }
        }
    }
}

impl Decoded {
    fn alone(self, begin: Instant) {
        let decoded = Instant::now();
        let output = self.waiting.asked.tail.infer(&self.input).map_err(model_status);
        let done = Instant::now();
        self.answer(output, Times { begin, decoded, done });
    }

    fn answer(self, output: Result<NamedTensors, Status>, times: Times) {
        let reply = output.map(|output| {
            // What the model says is exact, whatever it was told.
            let output = wire::encode(output, &F32);
            v1::InferReply {
                output,
                queue_ms: self.queue_ms,
                decode_ms: ms_between(times.begin, times.decoded),
                tail_ms: ms_between(times.decoded, times.done),
                encode_ms: ms_since(times.done),
                ..Default::default()
            }
        });
        let _ = self.waiting.reply.send(reply);
    }
}

/// When a batch's parts began. The times of a batch are those of each request in it.
#[derive(Clone, Copy)]
struct Times {
    begin: Instant,
    decoded: Instant,
    done: Instant,
}

/// Answers all of a batch, or takes none of it if it cannot be run as one: each may be at fault.
fn together(batch: &mut Vec<Decoded>, begin: Instant) -> bool {
    let samples: Vec<usize> = batch.iter().map(|one| one.waiting.samples).collect();
    let inputs: Vec<&NamedTensors> = batch.iter().map(|one| &one.input).collect();
    let Some(input) = wire::join(&inputs) else { return false };
    let decoded = Instant::now();
    let Ok(output) = batch[0].waiting.asked.tail.infer(&input) else { return false };
    let done = Instant::now();
    let Some(outputs) = wire::apart(&output, &samples) else { return false };
    for (one, output) in batch.drain(..).zip(outputs) {
        one.answer(Ok(output), Times { begin, decoded, done });
    }
    true
}

/// A place in the queue, which is left when its request is given up.
struct Place {
    waiting: Arc<Mutex<Queue>>,
    ticket: u64,
}

impl Place {
    /// Whether it was still there.
    fn give_up(&self) -> bool {
        locked(&self.waiting).requests.remove(self.ticket).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ms_between(begin: Instant, end: Instant) -> f64 {
    (end - begin).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use cleave_shared::{
        checkpoint::WeightsId,
        codec,
        compute::Machine,
        model::{MlpSpec, ModelSpec, SeededWeights},
        tensor::HostTensor,
    };
    use tonic::Code;

    use super::*;

    /// A batcher, and requests for one of its tails.
    fn batcher() -> (Batcher, impl Fn(usize, f32) -> Asked + Clone) {
        let spec = ModelSpec::Mlp(MlpSpec { input: [1, 8, 8], hidden: vec![16], classes: 10 });
        let tail = Segment::build(&spec, 0..spec.stage_count(), &mut SeededWeights(1), false);
        let tail = Arc::new(tail.unwrap());
        let pool = ComputePool::new(1, 16, Machine::new(1));
        let asked = move |width, value| {
            let input = HostTensor::from_f32(vec![1, 1, 8, width], &vec![value; 8 * width]);
            Asked {
                cut: Cut { split: 0, weights: WeightsId::Seed(1) },
                tail: tail.clone(),
                codec: codec::by_name("f32").unwrap(),
                activation: wire::encode(vec![("x".into(), input)], &F32),
                by: None,
            }
        };
        (Batcher::new(pool, 8, Duration::ZERO), asked)
    }

    /// Keeps the only thread until the sender is dropped.
    fn busy(pool: &ComputePool) -> std::sync::mpsc::Sender<()> {
        let (busy, until) = std::sync::mpsc::channel();
        pool.submit(move || {
            let _ = until.recv();
        })
        .unwrap();
        busy
    }

    #[tokio::test]
    async fn one_mistake_is_nobody_elses_error() {
        let (batcher, asked) = batcher();
        let alone = batcher.run("a", asked(8, 0.5)).await.unwrap().output;
        let busy = busy(&batcher.pool);
        let ask = |edge: &'static str, asked: Asked| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.run(edge, asked).await.map(|reply| reply.output) })
        };
        let good = ask("a", asked(8, 0.5));
        let shape = ask("b", asked(9, 0.5));
        let mut torn = asked(8, 0.5);
        torn.activation[0].data.truncate(7);
        let torn = ask("c", torn);
        let late = ask("d", Asked { by: Some(Deadline::after(Duration::ZERO)), ..asked(8, 0.1) });
        let gone = ask("e", asked(8, 0.2));
        let another = ask("f", asked(8, 0.5));
        while locked(&batcher.waiting).requests.waiting() < 6 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.is_err());
        assert_eq!(
            locked(&batcher.waiting).requests.waiting(),
            5,
            "what nobody waits for has left"
        );
        drop(busy);
        assert_eq!(good.await.unwrap().unwrap(), alone);
        assert_eq!(another.await.unwrap().unwrap(), alone);
        for (request, code) in [
            (shape, Code::InvalidArgument),
            (torn, Code::InvalidArgument),
            (late, Code::ResourceExhausted),
        ] {
            assert_eq!(request.await.unwrap().unwrap_err().code(), code);
        }
    }

    #[tokio::test]
    async fn requests_that_are_answered_together_leave_no_turns_behind() {
        let (batcher, asked) = batcher();
        // One thread, and room for sixteen: all of these may wait at the same time, over and over.
        let many: Vec<_> = (0..12)
            .map(|_| {
                let (batcher, asked) = (batcher.clone(), asked.clone());
                tokio::spawn(async move {
                    for _ in 0..50 {
                        batcher.run("a", asked(8, 0.0)).await?;
                    }
                    Ok::<(), Status>(())
                })
            })
            .collect();
        for one in many {
            one.await.unwrap().unwrap();
        }
        assert_eq!(locked(&batcher.waiting).requests.waiting(), 0);
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let (batcher, asked) = batcher();
        let busy = busy(&batcher.pool);
        let many: Vec<_> = (0..20)
            .map(|_| {
                let (batcher, asked) = (batcher.clone(), asked(8, 0.0));
                tokio::spawn(async move { batcher.run("a", asked).await })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(busy);
        let mut refused = 0;
        for one in many {
            if let Err(status) = one.await.unwrap() {
                assert_eq!(status.code(), Code::ResourceExhausted);
                refused += 1;
            }
        }
        assert_eq!(refused, 4, "one thread and room for sixteen");
    }
}
