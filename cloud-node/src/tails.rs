//! The tails that are in memory, one for each cut that edges ask for.

use std::sync::{Arc, Mutex};

use cleave_shared::{
    checkpoint::{Library, WeightsId},
    compute::ComputePool,
    model::{ModelSpec, Segment, WeightFormat},
};
use tokio::sync::OnceCell;
use tonic::Status;

use crate::{handshake::Cut, weights::library_status};

type Slot = Arc<OnceCell<Arc<Segment>>>;

/// Least recently used tails are dropped; requests in flight keep theirs until they are done.
pub struct Tails {
    spec: ModelSpec,
    format: WeightFormat,
    library: Arc<Library>,
    most: usize,
    /// Most recently used last. A handful of entries: a scan is quicker than a map.
    slots: Mutex<Vec<(Cut, Slot)>>,
}

impl Tails {
    pub fn new(spec: ModelSpec, format: WeightFormat, library: Arc<Library>, most: usize) -> Self {
        Self { spec, format, library, most, slots: Mutex::default() }
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
        let (spec, library, format) = (self.spec.clone(), self.library.clone(), self.format);
        let built = pool.run(move || {
            let range = cut.split..spec.stage_count();
            let names = &spec.stage_names()[range.clone()];
            let mut source = library.source(&cut.weights, names).map_err(library_status)?;
            Segment::build_in(format, &spec, range, source.as_mut())
                .map_err(|e| Status::failed_precondition(format!("{}: {e}", cut.weights)))
        });
        Ok(Arc::new(built.await.map_err(crate::service::compute_status)??))
    }
}
