//! Every set of weights that a node can name: of a seed, of its weight files, of its checkpoints.

use std::{path::Path, sync::Arc};

use super::{AdapterBase, CheckpointError, RunStore, WeightsId};
use crate::{
    model::{
        LoadedWeights, MergedWeights, ModelError, ModelSpec, SeededWeights, WeightFile,
        WeightFileError, Weights,
    },
    wire::NamedTensors,
};

/// Where both nodes get weights from, by id.
pub struct Library {
    spec: ModelSpec,
    store: Arc<RunStore>,
    file: Option<Arc<WeightFile>>,
}

/// Why weights are not to be had here.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(transparent)]
    File(#[from] WeightFileError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{id}: this node's weights.file is {own}; give both nodes the same files")]
    OtherFile { id: String, own: String },
    #[error("{id}: this node has no weights of {stages}")]
    Missing { id: String, stages: String },
}

impl Library {
    /// `file`: see [`WeightFile::open`].
    pub fn open(
        spec: &ModelSpec,
        store: Arc<RunStore>,
        file: Option<&Path>,
    ) -> Result<Self, LibraryError> {
        let file = file.map(WeightFile::open).transpose()?.map(Arc::new);
        Ok(Self { spec: spec.clone(), store, file })
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub fn store(&self) -> &Arc<RunStore> {
        &self.store
    }

    /// What a model starts from that nobody trained here: its files, else the seed.
    pub fn initial(&self, seed: u64) -> WeightsId {
        match &self.file {
            Some(file) => WeightsId::File(file.fingerprint().into()),
            None => WeightsId::Seed(seed),
        }
    }

    /// A source of the weights of these stages.
    pub fn source(
        &self,
        id: &WeightsId,
        stages: &[String],
    ) -> Result<Box<dyn Weights>, LibraryError> {
        match id {
            WeightsId::Seed(seed) => Ok(Box::new(SeededWeights(*seed))),
            WeightsId::File(_) => Ok(Box::new(self.same_file(id)?.source(self.spec.prefixes()))),
            WeightsId::Run { run, step } => {
                self.check_present(id, stages)?;
                let mut all = NamedTensors::new();
                for stage in stages {
                    all.extend(self.store.read(run, *step, stage)?.weights);
                }
                match self.store.adapters(run, *step)? {
                    None => Ok(Box::new(LoadedWeights::new(all))),
                    Some(adapters) => {
                        let base = self.source(&base_id(id, &adapters)?, stages)?;
                        let spec = self.spec.clone();
                        let is_input_major = move |name: &str| spec.is_input_major(name);
                        let scale = adapters.scale;
                        Ok(Box::new(MergedWeights::new(base, all, scale, is_input_major)))
                    }
                }
            }
        }
    }

    /// The stages among `stages` whose weights are not here, but might be brought here.
    pub fn missing(&self, id: &WeightsId, stages: &[String]) -> Result<Vec<String>, LibraryError> {
        match id {
            WeightsId::Seed(_) => Ok(Vec::new()),
            WeightsId::File(_) => self.same_file(id).map(|_| Vec::new()),
            WeightsId::Run { run, step } => {
                let here = self.store.stages(run, *step)?;
                if let Some(adapters) = self.store.adapters(run, *step)? {
                    self.missing(&base_id(id, &adapters)?, stages)?;
                }
                Ok(stages.iter().filter(|s| !here.contains(*s)).cloned().collect())
            }
        }
    }

    /// Refuses weights of a run of which some stages are not here.
    pub fn check_present(&self, id: &WeightsId, stages: &[String]) -> Result<(), LibraryError> {
        let absent = self.missing(id, stages)?;
        if absent.is_empty() {
            return Ok(());
        }
        Err(LibraryError::Missing { id: id.to_string(), stages: absent.join(", ") })
    }

    fn same_file(&self, id: &WeightsId) -> Result<&Arc<WeightFile>, LibraryError> {
        let own = self.file.as_ref().map(|f| (f, WeightsId::File(f.fingerprint().into())));
        match own {
            Some((file, own)) if own == *id => Ok(file),
            Some((_, own)) => {
                Err(LibraryError::OtherFile { id: id.to_string(), own: own.to_string() })
            }
            None => Err(LibraryError::OtherFile { id: id.to_string(), own: "not set".into() }),
        }
    }
}

/// What adapters are added to. Weights of a run are refused: a chain of runs could have no end.
fn base_id(id: &WeightsId, adapters: &AdapterBase) -> Result<WeightsId, CheckpointError> {
    let refuse = |problem: String| CheckpointError::Corrupt { path: id.to_string(), problem };
    if !adapters.scale.is_finite() {
        return Err(refuse(format!("the scale of its adapters is {}", adapters.scale)));
    }
    match adapters.weights.parse()? {
        WeightsId::Run { .. } => {
            Err(refuse(format!("its adapters belong to {}, a run", adapters.weights)))
        }
        base => Ok(base),
    }
}
