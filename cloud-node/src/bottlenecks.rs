//! The decoders of bottlenecks that edges name as their codec.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::RunStore,
    codec::{LEARNED, Learned, LearnedName, Place, SharedCodec},
    config::Config,
    kept::Kept,
    model::ModelSpec,
    session::TrainingSpec,
    wire::v1::Agreement,
};

use crate::train::RunFile;

/// Decoders kept in memory: a few layers' weights each.
const MOST: usize = 16;

/// What is in this node's folder of runs, and what of it was asked for.
pub struct Bottlenecks {
    source: Arc<Source>,
    allowed: bool,
    known: Kept<Key, SharedCodec>,
}

/// Where decoders are read from.
struct Source {
    store: Arc<RunStore>,
    model: ModelSpec,
}

/// Codec, split point and weights.
type Key = (String, u32, String);

impl Bottlenecks {
    pub fn new(config: &Config, store: Arc<RunStore>) -> Self {
        let allowed = config.codec.allowed.iter().any(|name| name == LEARNED);
        let source = Arc::new(Source { store, model: config.model.clone() });
        Self { source, allowed, known: Kept::new(MOST) }
    }

    /// The decoder that this agreement names; read from disk by the first who asks. Refused if it is
    /// of another split point or of other weights.
    pub async fn get(&self, edge: &Agreement) -> Result<SharedCodec, String> {
        if !self.allowed {
            return Err(format!("{:?} is not in codec.allowed", edge.activation_codec));
        }
        let key = (edge.activation_codec.clone(), edge.split_point, edge.weights.clone());
        let read = async || {
            let (source, edge) = (self.source.clone(), edge.clone());
            // Files, which others' requests are not to wait for.
            let opened = tokio::task::spawn_blocking(move || source.open(&edge)).await;
            opened.map_err(|e| format!("reading a bottleneck: {e}"))?
        };
        self.known.get(&key, read).await
    }
}

impl Source {
    fn open(&self, edge: &Agreement) -> Result<SharedCodec, String> {
        let name: LearnedName = edge.activation_codec.parse()?;
        let run = &name.run;
        let step = name.step.ok_or_else(|| format!("bottleneck {run} without its step"))?;
        let file = RunFile::read(&self.store, run).map_err(|e| e.to_string())?;
        let file = file.ok_or_else(|| format!("the cloud has no run {run}"))?;
        let training = TrainingSpec::parse(&file.training)?;
        let spec = training.bottleneck.ok_or_else(|| format!("{run} is no bottleneck"))?;
        let (split, weights) = (edge.split_point as usize, &edge.weights);
        if file.split_point != split || file.weights != *weights || file.spec_hash != edge.spec_hash
        {
            let (made_for, base) = (file.split_point, &file.weights);
            return Err(format!(
                "bottleneck {run} is for split point {made_for} of {base}, not for split point {split} of \
                 {weights}"
            ));
        }
        let (store, model) = (&*self.store, &self.model);
        let place = Place { store, model, split, name: &name, step };
        Ok(Arc::new(Learned::decoder(&spec, &place)?))
    }
}
