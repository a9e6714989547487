//! The tail's part of steps, on compute threads, while the coordinator goes on.

use std::{sync::Arc, time::Instant};

use cleave_shared::{
    compute::ComputePool,
    model::{ModelError, Segment},
    session::GroupSpec,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    strategy::{EdgeBatch, EdgeStep, Strategy},
    stream::Event,
};
use crate::{
    inference::ms_since,
    service::{compute_status, model_status},
};

/// Batches that a tail is to learn from.
pub struct Work {
    pub tail: Segment,
    pub batches: Vec<EdgeBatch>,
    /// Whose tail it is; none: the group's.
    pub owner: Option<usize>,
    /// See [`Computed::ticket`].
    pub ticket: u64,
    pub learning_rate: f64,
}

/// A tail comes back.
pub struct Computed {
    /// Gone if the compute thread failed.
    pub tail: Option<Segment>,
    pub owner: Option<usize>,
    /// As it was given: a tail that has been replaced meanwhile comes back with an old one.
    pub ticket: u64,
    pub edges: Vec<usize>,
    pub steps: Result<Vec<EdgeStep>, Status>,
    pub tail_ms: f64,
}

/// Starts the work; the outcome comes as an event.
pub fn start(
    work: Work,
    strategy: Arc<dyn Strategy>,
    spec: Arc<GroupSpec>,
    pool: ComputePool,
    events: mpsc::UnboundedSender<Event>,
) {
    let Work { mut tail, batches, owner, ticket, learning_rate } = work;
    let edges: Vec<usize> = batches.iter().map(|b| b.edge).collect();
    let job = move || {
        let begin = Instant::now();
        let steps = strategy.step(&mut tail, batches, &spec, learning_rate);
        (tail, steps, ms_since(begin))
    };
    tokio::spawn(async move {
        // Patiently: a refused job would take the tail's weights with it.
        let computed = match pool.run_patiently(job).await {
            Ok((tail, steps, tail_ms)) => {
                let steps = steps.map_err(|e: ModelError| model_status(e));
                Computed { tail: Some(tail), owner, ticket, edges, steps, tail_ms }
            }
            Err(error) => {
                let steps = Err(compute_status(error));
                Computed { tail: None, owner, ticket, edges, steps, tail_ms: 0.0 }
            }
        };
        let _ = events.send(Event::Computed(computed));
    });
}
