//! Dedicated threads for tensor work, so that computing never blocks the async runtime.
//!
//! A pool has a bounded queue. When it is full, [`ComputePool::run`] refuses a job at once: the caller
//! turns that into `RESOURCE_EXHAUSTED`, and latency stays bounded under overload. A job that must not
//! be lost, such as a training step that holds its weights, waits for room: [`ComputePool::run_patiently`]. A job whose
//! turn comes so late that its request could not be answered in time is refused as well ([`ComputePool::run_by`]): under
//! overload a first-in-first-out queue would else give every answer just too late.
//!
//! A large tensor operation is itself shared among cores. Each thread of a pool has helpers of its own for that
//! ([`Machine::kernel_threads`]), so that no request waits while a thread that it needs does another's work.

mod estimate;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use self::estimate::Estimate;
use crate::deadline::Deadline;

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    #[error("the compute queue is full ({queue} jobs waiting); retry later")]
    Busy { queue: usize },
    #[error(
        "waited {waited_ms} ms for a compute thread, too long to be answered in time; retry later"
    )]
    Late { waited_ms: u64 },
    #[error("the computation failed: {0}")]
    Panicked(String),
}

/// How the threads of a pool compute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Threads that share one tensor operation, this one among them; 0: as many as there are cores.
    pub kernel_threads: usize,
    /// How many times slower than this machine: a slower device, emulated. A thread that has done a job waits
    /// for as long as that device would still compute, and only then gives the result.
    pub scale: f64,
}

impl Machine {
    /// As fast as it is.
    pub fn new(kernel_threads: usize) -> Self {
        Self { kernel_threads, scale: 1.0 }
    }

    /// [`Machine::kernel_threads`], counted.
    pub fn kernels(&self) -> usize {
        match self.kernel_threads {
            0 => thread::available_parallelism().map_or(1, |cores| cores.get()),
            some => some,
        }
    }
}

/// What becomes of a job in the queue whose caller has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abandoned {
    Skipped,
    Run,
}

/// A fixed number of threads behind one bounded queue; cheap to clone.
#[derive(Clone)]
pub struct ComputePool {
    jobs: Sender<Job>,
    /// One permit for each job that runs or waits; it bounds the channel.
    room: Arc<Semaphore>,
    queue: usize,
    machine: Machine,
    /// What a job takes that has a deadline.
    usual: Arc<Estimate>,
}

/// A job's place in the queue.
struct Place {
    permit: OwnedSemaphorePermit,
    /// Whether it has to wait for others.
    behind: bool,
    abandoned: Abandoned,
    by: Option<Deadline>,
}

impl ComputePool {
    /// `threads` workers, and at most `queue` jobs waiting for them.
    pub fn new(threads: usize, queue: usize, machine: Machine) -> Self {
        let threads = threads.max(1);
        let (jobs, waiting) = unbounded::<Job>();
        for i in 0..threads {
            let waiting = waiting.clone();
            thread::Builder::new()
                .name(format!("compute-{i}"))
                .spawn(move || {
                    let _helpers = helpers(machine.kernels());
                    work(&waiting);
                })
                .expect("the system can start a thread");
        }
        let room = Arc::new(Semaphore::new(threads + queue));
        Self { jobs, room, queue, machine, usual: Arc::default() }
    }

    /// Whether a job that comes now has to wait.
    pub fn is_busy(&self) -> bool {
        self.room.available_permits() <= self.queue
    }

    /// How many times slower than this machine the emulated device is.
    pub fn scale(&self) -> f64 {
        self.machine.scale
    }

    /// Runs `job` on a compute thread and awaits its result without blocking the runtime; refuses
    /// it if the queue is full. A job whose caller has gone before it began, since its deadline has passed, is left out.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        self.run_by(None, job).await
    }

    /// The same, but a job that had to wait is refused when its turn comes if jobs like it usually take longer than what is
    /// left until `by`. One that finds a thread free runs in any case.
    pub async fn run_by<T: Send + 'static>(
        &self,
        by: Option<Deadline>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let behind = self.is_busy();
        match self.room.clone().try_acquire_owned() {
            Ok(permit) => {
                self.start(Place { permit, behind, abandoned: Abandoned::Skipped, by }, job).await
            }
            Err(_) => Err(ComputeError::Busy { queue: self.queue }),
        }
    }

    /// Lets a job run when its turn comes, whatever becomes of who asked; refuses it if the queue is full.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), ComputeError> {
        let busy = |_| ComputeError::Busy { queue: self.queue };
        let permit = self.room.clone().try_acquire_owned().map_err(busy)?;
        let place = Place { permit, behind: false, abandoned: Abandoned::Run, by: None };
        self.enqueue(place, job).map(drop)
    }

    /// As [`ComputePool::run`], but waits for room in the queue, and what has begun to wait is run whatever happens. For callers that are few by themselves.
    pub async fn run_patiently<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        match self.room.clone().acquire_owned().await {
            Ok(permit) => {
                let place = Place { permit, behind: false, abandoned: Abandoned::Run, by: None };
                self.start(place, job).await
            }
            Err(_) => Err(ComputeError::Busy { queue: self.queue }),
        }
    }

    async fn start<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        match self.enqueue(place, job)?.await {
            Ok(outcome) => outcome,
            Err(_) => Err(ComputeError::Panicked("the worker ended".into())),
        }
    }

    fn enqueue<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, ComputeError>>, ComputeError> {
        let (reply, result) = oneshot::channel();
        let (scale, asked, usual) = (self.machine.scale, Instant::now(), self.usual.clone());
        let Place { permit, behind, abandoned, by } = place;
        let job: Job = Box::new(move || {
            let waited = asked.elapsed();
            metrics::histogram!("cleave_compute_wait_seconds").record(waited);
            if reply.is_closed() && abandoned == Abandoned::Skipped {
                return;
            }
            if behind && by.is_some_and(|by| by.left() <= usual.upper()) {
                let waited_ms = waited.as_millis() as u64;
                drop(permit);
                let _ = reply.send(Err(ComputeError::Late { waited_ms }));
                return;
            }
            let begin = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(job));
            if scale > 1.0 {
                thread::sleep(begin.elapsed().mul_f64(scale - 1.0));
            }
            let took = begin.elapsed();
            metrics::histogram!("cleave_compute_seconds").record(took);
            if by.is_some() {
                usual.observe(took);
            }
            drop(permit);
            let _ = reply.send(outcome.map_err(|p| ComputeError::Panicked(panic_text(p.as_ref()))));
        });
        if self.jobs.send(job).is_err() {
            return Err(ComputeError::Panicked("no worker is left".into()));
        }
        Ok(result)
    }
}

/// Makes this thread one of so many that share what it computes, until the thread ends. If there is no room for
/// more threads, operations are shared among all of the process.
fn helpers(kernels: usize) -> Option<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(kernels).use_current_thread();
    let pool = pool.thread_name(|i| format!("kernel-{i}")).build();
    pool.inspect_err(|error| tracing::warn!("no helpers for tensor operations: {error}")).ok()
}

/// Each thread waits by itself: a job wakes one of them.
fn work(waiting: &Receiver<Job>) {
    waiting.iter().for_each(|job| job());
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_slow_device_gives_its_results_late() {
        let took = async |scale| {
            let begin = Instant::now();
            let work = || thread::sleep(Duration::from_millis(5));
            ComputePool::new(1, 1, Machine { kernel_threads: 1, scale }).run(work).await.unwrap();
            begin.elapsed().as_secs_f64()
        };
        assert!(took(20.0).await >= 0.1);
    }

    #[tokio::test]
    async fn a_job_has_helpers_of_its_own() {
        let pool = ComputePool::new(2, 1, Machine::new(3));
        assert_eq!(pool.run(rayon::current_num_threads).await, Ok(3));
        let index = pool.run(rayon::current_thread_index).await;
        assert_eq!(index, Ok(Some(0)), "the thread that runs the job is one of them");
        assert!(Machine::new(0).kernels() >= 1);
    }

    #[tokio::test]
    async fn what_waited_too_long_is_refused_and_what_finds_a_thread_runs() {
        let ms = Duration::from_millis;
        let pool = ComputePool::new(1, 4, Machine::new(1));
        let job = move || thread::sleep(ms(30));
        let far = Deadline::after(Duration::from_secs(3600));
        assert_eq!(pool.run_by(Some(far), job).await, Ok(()));
        // Jobs take up to 90 ms, as far as is known.
        let near = Deadline::after(ms(100));
        let (first, second, third) = tokio::join!(
            pool.run_by(Some(near), job),
            pool.run_by(Some(near), job),
            pool.run_by(Some(far), job)
        );
        assert_eq!((first, third), (Ok(()), Ok(())));
        assert!(matches!(second, Err(ComputeError::Late { waited_ms: 30.. })), "{second:?}");
        assert_eq!(pool.run_by(Some(Deadline::after(ms(0))), job).await, Ok(()), "a free thread");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_panic_is_an_error() {
        let pool = ComputePool::new(1, 1, Machine::new(1));
        assert_eq!(pool.run(|| 2 + 2).await, Ok(4));
        let panicked = pool.run(|| -> u8 { panic!("boom") }).await;
        assert_eq!(panicked, Err(ComputeError::Panicked("boom".into())));

        let (go, gate) = std::sync::mpsc::channel::<()>();
        let (started, running) = oneshot::channel();
        let blocked = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = started.send(());
                    let _ = gate.recv();
                })
                .await
            }
        });
        running.await.unwrap();
        let queued = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|| ()).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(pool.run(|| ()).await, Err(ComputeError::Busy { queue: 1 }));
        let patient = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run_patiently(|| 7).await }
        });
        go.send(()).unwrap();
        assert_eq!(blocked.await.unwrap(), Ok(()));
        assert_eq!(queued.await.unwrap(), Ok(()));
        assert_eq!(patient.await.unwrap(), Ok(7));
    }
}
