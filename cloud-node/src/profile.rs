//! What this machine takes for the model's stages, for the planner of an edge.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::Library,
    compute::ComputePool,
    config::Config,
    kept::Kept,
    model::{ModelSpec, WeightFormat},
    profile::{ComputeProfile, Request, measure},
    progress::unseen,
    wire::v1,
};
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

/// Measures once for equal requests.
pub struct Profiler {
    handshake: Arc<Handshake>,
    library: Arc<Library>,
    spec: ModelSpec,
    format: WeightFormat,
    pool: ComputePool,
    /// By sizes and codecs: times depend on the machine and on these, not on whose weights they are.
    kept: Kept<(Request, Vec<String>), String>,
}

impl Profiler {
    pub fn new(
        config: &Config,
        handshake: Arc<Handshake>,
        library: Arc<Library>,
        pool: ComputePool,
    ) -> Self {
        let (spec, format) = (config.model.clone(), config.quantize.weights);
        let kept = Kept::new(MOST_KEPT);
        Self { handshake, library, spec, format, pool, kept }
    }

    pub async fn run(&self, asked: v1::ProfileRequest) -> Result<v1::ProfileReply, Status> {
        self.handshake.check(asked.agreement.as_ref()).await?;
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
        let key = (request, asked.codecs);
        let profile = self.kept.get(&key, async || self.measure(request, &key.1).await).await?;
        Ok(v1::ProfileReply { profile })
    }

    async fn measure(&self, request: Request, codecs: &[String]) -> Result<String, Status> {
        let codecs = codecs.iter().map(|name| self.handshake.codec(name));
        let codecs = codecs.collect::<Result<Vec<_>, Status>>()?;
        let (spec, format) = (self.spec.clone(), self.format);
        let library = self.library.clone();
        let job = move || -> Result<ComputeProfile, Status> {
            let (stages, weights) = (spec.stage_names(), library.initial(0));
            let mut source = library.source(&weights, &stages).map_err(library_status)?;
            let found = measure(&spec, format, request, &codecs, source.as_mut(), &unseen);
            found.map_err(model_status)
        };
        let profile = self.pool.run_patiently(job).await.map_err(compute_status)??;
        Ok(serde_json::to_string(&profile).expect("plain data"))
    }
}
