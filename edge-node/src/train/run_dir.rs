//! The folder of a run on the edge: what it is, its metrics, its checkpoints.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cleave_shared::{
    checkpoint::{CheckpointError, RunStore, WeightsId, check_run_id},
    config::{Config, MicroBatches},
    data::{DataSpec, Feed, Manifest, Prepared},
    model::ModelSpec,
    session::{Schedule, Topology, TrainingSpec},
};
use serde::{Deserialize, Serialize};

use super::Options;

const RECORD: &str = "run.json";

/// Which prepared data a run learns from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedData {
    /// The run in whose folder they are.
    pub run: String,
    /// SHA-256 of their manifest.
    pub sha256: String,
}

/// Where a run's prepared data are.
pub fn data_folder(runs: &Path, run: &str) -> PathBuf {
    runs.join("edge").join(run).join("data")
}

impl PreparedData {
    /// What was prepared for this run, if anything was.
    pub fn find(config: &Config, run: &str) -> Result<Option<Self>, String> {
        let folder = data_folder(&config.runs.dir, run);
        if !Prepared::is_in(&folder) {
            return Ok(None);
        }
        let (_, sha256) = Prepared::manifest(&folder).map_err(|e| e.to_string())?;
        Ok(Some(Self { run: run.into(), sha256 }))
    }

    /// The manifest, refused if it is not the one that the run learned from.
    pub fn manifest(&self, runs: &Path) -> Result<Manifest, String> {
        let folder = data_folder(runs, &self.run);
        let (manifest, sha256) = Prepared::manifest(&folder).map_err(|e| e.to_string())?;
        match sha256 == self.sha256 {
            true => Ok(manifest),
            false => Err(format!("{}: was prepared again since the run began", folder.display())),
        }
    }
}

/// What makes a run the run it is: all that its losses depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    pub model: ModelSpec,
    pub split_point: usize,
    pub seed: u64,
    pub data: DataSpec,
    /// The data as it was prepared, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PreparedData>,
    pub batch_size: usize,
    /// They change the order in which gradients are added up, and what BatchNorm sees at a time.
    #[serde(default = "one_after_the_other")]
    pub micro_batches: MicroBatches,
    pub training: TrainingSpec,
    #[serde(default)]
    pub schedule: Schedule,
    #[serde(default, skip_serializing_if = "is_default")]
    pub topology: Topology,
    /// If the schedule depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    pub activation_codec: String,
    pub gradient_codec: String,
    /// Weights that it began with, if they are not what the configuration starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

fn one_after_the_other() -> MicroBatches {
    MicroBatches::Fixed(1)
}

fn is_default(topology: &Topology) -> bool {
    *topology == Topology::default()
}

impl RunRecord {
    pub fn new(config: &Config, prepared: Option<PreparedData>) -> Self {
        Self {
            model: config.model.clone(),
            split_point: config.split_point,
            seed: config.seed,
            data: config.data.clone(),
            prepared,
            batch_size: config.train.batch_size,
            micro_batches: config.train.micro_batches,
            schedule: config.train.schedule,
            epochs: config.train.schedule.depends_on_total().then_some(config.train.epochs),
            training: config.train.spec(),
            topology: config.train.topology.clone(),
            activation_codec: config.codec.activation.clone(),
            gradient_codec: config.codec.gradient.clone(),
            start: None,
        }
    }

    /// Refuses what is not the weights of a model.
    pub fn check_model(&self, run: &str) -> Result<(), String> {
        let Some(base) = self.start.as_ref().filter(|_| self.training.bottleneck.is_some()) else {
            return Ok(());
        };
        Err(format!("--run: {run} is a bottleneck of {base}, served as codec bottleneck:{run}"))
    }

    /// The record of this run, if it was begun.
    pub fn read(runs: &Path, run: &str) -> Result<Option<Self>, String> {
        check_run_id(run).map_err(|e| format!("--run: {e}"))?;
        read_record(&runs.join("edge").join(run))
    }

    /// This configuration, but with what the run was begun with.
    pub fn configure(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.model = self.model.clone();
        config.split_point = self.split_point;
        config.seed = self.seed;
        config.data = self.data.clone();
        config.train.batch_size = self.batch_size;
        config.train.topology = self.topology.clone();
        config.train.loss = self.training.loss;
        config.train.optimizer = self.training.optimizer.clone();
        config.train.clip_norm = self.training.clip_norm;
        config.train.privacy = self.training.privacy.clone();
        config.train.micro_batches = self.micro_batches;
        config.train.schedule = self.schedule;
        config.codec.activation = self.activation_codec.clone();
        config.codec.gradient = self.gradient_codec.clone();
        config
    }

    /// Opens the run's data, as its model reads them.
    pub fn feed(&self, config: &Config) -> Result<Feed, String> {
        let source = match &self.prepared {
            Some(prepared) => {
                prepared.manifest(&config.runs.dir)?;
                DataSpec::Prepared { path: data_folder(&config.runs.dir, &prepared.run) }
            }
            None => self.data.clone(),
        };
        let dataset = source.open().map_err(|e| e.to_string())?;
        Feed::new(&self.model, self.training.loss, dataset).map_err(|e| e.to_string())
    }

    /// Keys in which the configuration differs from the run.
    fn differences(&self, other: &Self) -> String {
        let as_map = |r: &Self| serde_json::to_value(r).expect("plain data");
        let (run, now) = (as_map(self), as_map(other));
        let keys = run.as_object().into_iter().flatten();
        let differ = keys.filter(|(key, value)| now.get(key) != Some(value));
        let lines = differ.map(|(key, value)| format!("{key} was {value}, is {}", now[key]));
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// A run's folder under `<runs>/edge`.
pub struct RunDir {
    pub id: String,
    pub path: PathBuf,
    /// See [`RunRecord::start`].
    pub start: Option<WeightsId>,
    pub store: Arc<RunStore>,
}

impl RunDir {
    /// The run that is meant: the one that is named, the newest to resume, or a new one.
    pub fn choose(config: &Config, options: &Options) -> Result<String, String> {
        let parent = config.runs.dir.join("edge");
        let id = match (&options.run, options.resume) {
            (Some(id), _) => id.clone(),
            (None, true) => newest(&parent)
                .ok_or_else(|| format!("--resume: there is no run in {}", parent.display()))?,
            (None, false) => fresh_id(&parent),
        };
        check_run_id(&id).map_err(|e| format!("--run: {e}"))?;
        Ok(id)
    }

    /// The folder of a group's run, which any of its edges may be the first to need.
    pub fn join(config: &Config, record: &RunRecord, id: String) -> Result<Self, String> {
        let store = RunStore::new(config.runs.dir.join("edge"));
        let known = || Ok::<bool, String>(read_record(&store.run_dir(&id))?.is_some());
        let before = known()?;
        match Self::open(config, record, id.clone(), before) {
            // Another edge of the group was quicker.
            Err(_) if !before && known()? => Self::open(config, record, id, true),
            outcome => outcome,
        }
    }

    /// Makes the folder of a new run, or finds the one to resume and checks that it is the same.
    pub fn open(
        config: &Config,
        record: &RunRecord,
        id: String,
        resume: bool,
    ) -> Result<Self, String> {
        let parent = config.runs.dir.join("edge");
        let store = Arc::new(config.runs.open("edge")?);
        let path = store.run_dir(&id);
        store.fetch_file(&id, RECORD).map_err(|e| e.to_string())?;
        let known = read_record(&path)?;
        match (known, resume) {
            (Some(_), false) => {
                return Err(format!("run {id} exists: continue it with --resume, or name another"));
            }
            (None, true) => return Err(format!("run {id} is not in {}", parent.display())),
            (Some(known), true) if known != *record => {
                let differences = known.differences(record);
                return Err(format!(
                    "run {id} was begun with another configuration: {differences}"
                ));
            }
            (Some(_), true) => {}
            (None, false) => {
                let json = serde_json::to_vec_pretty(record).expect("plain data");
                store.write_file(&id, RECORD, &json).map_err(|e| e.to_string())?;
            }
        }
        let start = record.start.as_ref().map(|start| start.parse()).transpose();
        let start = start.map_err(|e: CheckpointError| format!("run {id}: {e}"))?;
        Ok(Self { id, path, start, store })
    }
}

fn read_record(path: &Path) -> Result<Option<RunRecord>, String> {
    let file = path.join(RECORD);
    match fs::read(&file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|e| format!("{}: {e}", file.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", file.display())),
    }
}

/// The run of this configuration that was begun last.
pub fn newest_run(config: &Config) -> Option<String> {
    newest(&config.runs.dir.join("edge"))
}

/// An id that no run has.
pub fn new_run_id(config: &Config) -> String {
    fresh_id(&config.runs.dir.join("edge"))
}

/// The run of a model whose record was written last.
fn newest(parent: &Path) -> Option<String> {
    let of_model = |e: &fs::DirEntry| !matches!(read_record(&e.path()), Ok(Some(r)) if r.training.bottleneck.is_some());
    let entries = fs::read_dir(parent).ok()?.flatten().filter(of_model);
    let dated = entries.filter_map(|e| {
        let written = fs::metadata(e.path().join(RECORD)).ok()?.modified().ok()?;
        Some((written, e.file_name().into_string().ok()?))
    });
    dated.max().map(|(_, id)| id)
}

/// `run-<seconds since 1970>`, which sorts by age.
fn fresh_id(parent: &Path) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let free = |id: &String| !parent.join(id).exists();
    let candidates = (seconds..).map(|s| format!("run-{s}"));
    candidates.into_iter().find(free).expect("some second is free")
}
