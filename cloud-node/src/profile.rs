//! What this machine takes for the model's stages, for the planner of an edge.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use cleave_shared::{
    checkpoint::{Library, WeightsId},
    compute::ComputePool,
    model::{ModelSpec, WeightFormat},
    profile::{ComputeProfile, Request, measure},
    wire::v1,
};
use tokio::sync::OnceCell;
use tonic::Status;

use crate::{
    handshake::Handshake,
    service::{compute_status, model_status},
    weights::library_status,
};

/// Limits against a peer that asks for hours of work.
const MOST_ROUNDS: u32 = 100;
const MOST_SAMPLES: u32 = 4096;
/// Different requests that are remembered.
const MOST_KEPT: usize = 32;

/// Times depend on the machine and the sizes only, not on whose weights they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    request: Request,
    codecs: Vec<String>,
}

/// Measures once for equal requests.
pub struct Profiler {
    pub handshake: Arc<Handshake>,
    pub library: Arc<Library>,
    pub spec: ModelSpec,
    pub format: WeightFormat,
    pub threads: usize,
    pub pool: ComputePool,
    pub known: Mutex<HashMap<Key, Arc<OnceCell<String>>>>,
}

impl Profiler {
    pub async fn run(&self, asked: v1::ProfileRequest) -> Result<v1::ProfileReply, Status> {
        let cut = self.handshake.check(asked.agreement.as_ref())?.cut;
        let allowed = |what: &str, n: u32, most: u32| match n {
            n if (1..=most).contains(&n) => Ok(n as usize),
            n => Err(Status::invalid_argument(format!("{what} {n} is not 1 to {most}"))),
        };
        let request = Request {
            batch: allowed("batch", asked.batch, MOST_SAMPLES)?,
            length: allowed("length", asked.length, u32::MAX)?,
            rounds: allowed("rounds", asked.rounds, MOST_ROUNDS)?,
            training: asked.training,
        };
        let slot = self.slot(Key { request, codecs: asked.codecs.clone() });
        let profile = slot.get_or_try_init(|| self.measure(request, asked.codecs, cut.weights));
        Ok(v1::ProfileReply { profile: profile.await?.clone() })
    }

    fn slot(&self, key: Key) -> Arc<OnceCell<String>> {
        let mut known = self.known.lock().unwrap_or_else(|p| p.into_inner());
        if known.len() >= MOST_KEPT && !known.contains_key(&key) {
            known.clear();
        }
        known.entry(key).or_default().clone()
    }

    async fn measure(
        &self,
        request: Request,
        names: Vec<String>,
        weights: WeightsId,
    ) -> Result<String, Status> {
        let codecs = names.iter().map(|name| self.handshake.codec(name));
        let codecs = codecs.collect::<Result<Vec<_>, Status>>()?;
        let (spec, format, threads) = (self.spec.clone(), self.format, self.threads);
        let library = self.library.clone();
        let job = move || -> Result<ComputeProfile, Status> {
            let stages = spec.stage_names();
            // A tail may be all that is here of a run; how long a stage takes is not in its weights.
            let present = library.check_present(&weights, &stages).is_ok();
            let weights = if present { weights } else { library.initial(0) };
            let mut source = library.source(&weights, &stages).map_err(library_status)?;
            measure(&spec, format, request, &codecs, threads, source.as_mut()).map_err(model_status)
        };
        let profile = self.pool.run_patiently(job).await.map_err(compute_status)??;
        Ok(serde_json::to_string(&profile).expect("plain data"))
    }
}
