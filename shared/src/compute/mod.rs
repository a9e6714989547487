//! Dedicated threads for tensor work, so that computing never blocks the async runtime.
//!
//! A pool has a bounded queue. When it is full, [`ComputePool::run`] refuses a job at once: the caller
//! turns that into `RESOURCE_EXHAUSTED`, and latency stays bounded under overload. A job that must not
//! be lost, such as a training step that holds its weights, waits for room: [`ComputePool::run_patiently`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    #[error("the compute queue is full ({queue} jobs waiting); retry later")]
    Busy { queue: usize },
    #[error("the computation failed: {0}")]
    Panicked(String),
}

/// A fixed number of threads behind one bounded queue; cheap to clone.
#[derive(Clone)]
pub struct ComputePool {
    jobs: Sender<Job>,
    /// One permit for each job that runs or waits; it bounds the channel.
    room: Arc<Semaphore>,
    queue: usize,
    scale: f64,
}

impl ComputePool {
    /// `threads` workers, and at most `queue` jobs waiting for them.
    pub fn new(threads: usize, queue: usize) -> Self {
        Self::slowed(threads, queue, 1.0)
    }

    /// The same on a device that is `scale` times slower, emulated: a thread that has done a job waits
    /// for as long as that device would still compute, and only then gives the result.
    pub fn slowed(threads: usize, queue: usize, scale: f64) -> Self {
        let threads = threads.max(1);
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for i in 0..threads {
            let waiting = waiting.clone();
            thread::Builder::new()
                .name(format!("compute-{i}"))
                .spawn(move || work(&waiting))
                .expect("the system can start a thread");
        }
        Self { jobs, room: Arc::new(Semaphore::new(threads + queue)), queue, scale }
    }

    /// How many times slower than this machine the emulated device is.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Runs `job` on a compute thread and awaits its result without blocking the runtime; refuses
    /// it if the queue is full.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        match self.room.clone().try_acquire_owned() {
            Ok(permit) => self.start(permit, job).await,
            Err(_) => Err(ComputeError::Busy { queue: self.queue }),
        }
    }

    /// The same, but waits for room in the queue. For callers that are few by themselves.
    pub async fn run_patiently<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        match self.room.clone().acquire_owned().await {
            Ok(permit) => self.start(permit, job).await,
            Err(_) => Err(ComputeError::Busy { queue: self.queue }),
        }
    }

    async fn start<T: Send + 'static>(
        &self,
        permit: OwnedSemaphorePermit,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let (reply, result) = oneshot::channel();
        let scale = self.scale;
        let job: Job = Box::new(move || {
            let begin = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(job));
            if scale > 1.0 {
                thread::sleep(begin.elapsed().mul_f64(scale - 1.0));
            }
            drop(permit);
            let _ = reply.send(outcome.map_err(|p| panic_text(p.as_ref())));
        });
        if self.jobs.send(job).is_err() {
            return Err(ComputeError::Panicked("no worker is left".into()));
        }
        match result.await {
            Ok(outcome) => outcome.map_err(ComputeError::Panicked),
            Err(_) => Err(ComputeError::Panicked("the worker ended".into())),
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(|p| p.into_inner()).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_device_gives_its_results_late() {
        let took = async |scale| {
            let begin = Instant::now();
            let work = || thread::sleep(std::time::Duration::from_millis(5));
            ComputePool::slowed(1, 1, scale).run(work).await.unwrap();
            begin.elapsed().as_secs_f64()
        };
        assert!(took(20.0).await >= 0.1);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_panic_is_an_error() {
        let pool = ComputePool::new(1, 1);
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
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
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
