//! The tails that are in memory, one for each cut that edges ask for.

use std::sync::{Arc, Mutex};

use cleave_shared::{
    checkpoint::{Library, WeightsId},
    compute::ComputePool,
    model::{ModelSpec, Segment, StageShelf, WeightFormat},
};
use tokio::sync::OnceCell;
use tonic::Status;

use crate::{handshake::Cut, weights::library_status};

type Slot = Arc<OnceCell<Arc<Segment>>>;

/// Least recently used tails are dropped; requests in flight keep theirs until they are done.
pub struct Tails {
    spec: ModelSpec,
    /// Tails of other cuts share their layers.
    shelf: Arc<StageShelf>,
    library: Arc<Library>,
    most: usize,
    /// Most recently used last. A handful of entries: a scan is quicker than a map.
    slots: Mutex<Vec<(Cut, Slot)>>,
}

impl Tails {
    pub fn new(spec: ModelSpec, format: WeightFormat, library: Arc<Library>, most: usize) -> Self {
        let shelf = Arc::new(StageShelf::new(spec.clone(), format));
        Self { spec, shelf, library, most, slots: Mutex::default() }
    }

    /// The tail of this cut, built by the first request that asks for it.
    pub async fn get(&self, cut: &Cut, pool: &ComputePool) -> Result<Arc<Segment>, Status> {
        let slot = self.slot(cut);
        let tail = slot.get_or_try_init(|| self.build(cut.clone(), pool)).await;
        if tail.is_err() {
            // A run that is written later must not be remembered as missing.
            self.slots().retain(|(c, _)| c != cut);
        }
        tail.cloned()
    }

    /// Drops the tails of a run whose steps are taken anew.
    pub fn forget(&self, run: &str) {
        self.shelf.forget(&format!("run:{run}:"));
        self.slots().retain(|(cut, _)| match &cut.weights {
            WeightsId::Run { run: known, .. } => known != run,
            WeightsId::Seed(_) | WeightsId::File(_) => true,
        });
    }

    fn slot(&self, cut: &Cut) -> Slot {
        let mut slots = self.slots();
        let known = slots.iter().position(|(c, _)| c == cut);
        let entry = match known {
            Some(i) => slots.remove(i),
            None => (cut.clone(), Slot::default()),
        };
        let slot = entry.1.clone();
        slots.push(entry);
        let over = slots.len().saturating_sub(self.most);
        slots.drain(..over);
        slot
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<(Cut, Slot)>> {
        self.slots.lock().unwrap_or_else(|p| p.into_inner())
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
