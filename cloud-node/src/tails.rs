//! The tails that are in memory, one for each cut that edges ask for.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::{Library, WeightsId},
    compute::ComputePool,
    kept::Kept,
    model::{ModelSpec, Segment, StageShelf, WeightFormat},
};
use tonic::Status;

use crate::{handshake::Cut, weights::library_status};

/// Least recently used tails are dropped; requests in flight keep theirs until they are done.
pub struct Tails {
    spec: ModelSpec,
    /// Tails of other cuts share their layers.
    shelf: Arc<StageShelf>,
    library: Arc<Library>,
    kept: Kept<Cut, Arc<Segment>>,
}

impl Tails {
    pub fn new(spec: ModelSpec, format: WeightFormat, library: Arc<Library>, most: usize) -> Self {
        let shelf = Arc::new(StageShelf::new(spec.clone(), format));
        Self { spec, shelf, library, kept: Kept::new(most) }
    }

    /// The tail of this cut, built by the first request that asks for it. A run that is written later is
    /// not remembered as missing.
    pub async fn get(&self, cut: &Cut, pool: &ComputePool) -> Result<Arc<Segment>, Status> {
        self.kept.get(cut, async || self.build(cut.clone(), pool).await).await
    }

    /// Drops the tails of a run whose steps are taken anew.
    pub fn forget(&self, run: &str) {
        self.shelf.forget(&format!("run:{run}:"));
        self.kept.retain(|cut| match &cut.weights {
            WeightsId::Run { run: known, .. } => known != run,
            WeightsId::Seed(_) | WeightsId::File(_) => true,
        });
    }

    async fn build(&self, cut: Cut, pool: &ComputePool) -> Result<Arc<Segment>, Status> {
        let (spec, library, shelf) = (self.spec.clone(), self.library.clone(), self.shelf.clone());
        let built = pool.run(move || {
            let refuse = |e| Status::failed_precondition(format!("{}: {e}", cut.weights));
            let range = cut.split..spec.stage_count();
            let partial = shelf.take(&cut.weights.to_string(), range).map_err(refuse)?;
            let mut source =
                library.source(&cut.weights, &partial.missing()).map_err(library_status)?;
            partial.load(source.as_mut()).map_err(refuse)
        });
        Ok(Arc::new(built.await.map_err(crate::service::compute_status)??))
    }
}
