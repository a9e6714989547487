//! One configuration for both nodes.
//!
//! Layers, the later over the earlier: the defaults below, a TOML file, environment variables
//! (`CLEAVE_EDGE__CLOUD` is `edge.cloud`), flags. `config/cleave.toml` documents every key and
//! holds the defaults. An unknown key or a value out of range is refused with the key's path.

mod agreement;
mod args;
mod auto;
mod check;
mod load;
mod plan;
mod security;
mod train;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    args::ConfigArgs,
    load::{ConfigError, Overrides, PROFILES, load},
    plan::{CloudPrice, Energy, PlanConfig, SplitPoint, WINDOW_CLOSES, Weights},
    security::{Plaintext, QuotaConfig, SecurityConfig},
    train::{MicroBatches, TrainConfig},
};
use crate::{
    checkpoint::{Library, RunStore},
    codec::{self, F32, LearnedName, SharedCodec},
    compute::Machine,
    data::DataSpec,
    link::Profile,
    model::{LenetSpec, ModelSpec, WeightFormat, named},
    telemetry::LogFormat,
    text::Tokenizer,
};

/// Everything a node can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stages `0..split_point` run on the edge, the rest in the cloud.
    pub split_point: SplitPoint,
    /// Seed of initial weights, data split and batch order.
    pub seed: u64,
    /// In a file: a name such as `"lenet"`, or a table with family and sizes.
    #[serde(deserialize_with = "named::deserialize")]
    pub model: ModelSpec,
    pub weights: WeightsConfig,
    pub quantize: QuantizeConfig,
    pub codec: CodecConfig,
    pub link: LinkConfig,
    pub cloud: CloudConfig,
    pub edge: EdgeConfig,
    pub plan: PlanConfig,
    pub exits: ExitsConfig,
    pub train: TrainConfig,
    pub data: DataSpec,
    pub prepare: PrepareConfig,
    pub runs: RunsConfig,
    pub security: SecurityConfig,
    pub log: LogConfig,
    pub trace: TraceConfig,
}

/// What the edge does without a cloud.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The client is told; early exits may still answer.
    #[default]
    Refuse,
    /// It runs the whole model itself, which it keeps at hand.
    Whole,
}

/// What the model starts from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WeightsConfig {
    /// safetensors of the whole model; without it, random weights of `seed`.
    pub file: Option<PathBuf>,
    /// A `tokenizer.json`; see [`WeightsConfig::tokenizer_file`].
    pub tokenizer: Option<PathBuf>,
}

impl WeightsConfig {
    /// The tokenizer of the model: the one named, or the one beside the weight file, if there is one.
    pub fn tokenizer_file(&self) -> Option<PathBuf> {
        let beside = || Tokenizer::beside(self.file.as_deref()?);
        self.tokenizer.clone().or_else(beside)
    }
}

/// How weights are kept for inference; both nodes must name the same.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizeConfig {
    pub weights: WeightFormat,
}

/// How floats cross the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CodecConfig {
    /// Of activations, by name; the edge's choice.
    pub activation: String,
    /// Of cut-layer gradients; the edge's choice.
    pub gradient: String,
    /// What the cloud takes from an edge.
    pub allowed: Vec<String>,
}

/// The simulated link, which the edge puts around its connection to the cloud.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// A profile's name, or the path of its file.
    pub profile: String,
    /// Seed of jitter, block errors and outages.
    pub seed: u64,
    /// What the profile's file said when the configuration was loaded.
    #[serde(skip, default = "default_profile")]
    pub resolved: Profile,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudConfig {
    pub listen: SocketAddr,
    /// Where `GET /metrics` answers in Prometheus' text format; without it, nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Threads that compute tails.
    pub threads: usize,
    /// Threads that share one tensor operation of each of them; 0: as many as there are cores.
    pub kernel_threads: usize,
    /// Requests that may wait for them; more are refused.
    pub queue: usize,
    /// Samples of requests at the same cut that are computed as one batch; 1: each request by itself.
    pub max_batch: usize,
    /// How long a request waits for others to come, ms; without it, only while threads are busy.
    pub batch_delay_ms: f64,
    /// Largest activation, all its tensors together, bytes.
    pub max_activation_bytes: usize,
    /// Tails kept in memory for inference, one for each split point and set of weights in use.
    pub max_tails: usize,
    /// Training runs kept in memory.
    pub max_runs: usize,
    /// Sequences that are continued at once.
    pub max_sessions: usize,
    /// Memory of all their caches, bytes.
    pub max_cache_bytes: usize,
    /// How long a sequence may do nothing before it is ended, s.
    pub session_idle_s: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// The cloud's address, `http://host:port`.
    pub cloud: String,
    /// Clouds that answer requests when that one does not, in this order.
    pub standby: Vec<String>,
    /// Whether the edge begins with any of them, so that many edges share the clouds.
    pub shuffle: bool,
    /// Times that a request is sent again when it was lost.
    pub retries: u32,
    /// What becomes of a request that no cloud answers.
    pub fallback: Fallback,
    pub grpc_listen: SocketAddr,
    pub http_listen: SocketAddr,
    /// Who has this token may change settings on the page; a file with nothing else. Without it nobody may.
    pub admin_token: Option<PathBuf>,
    /// The name that clients ask for.
    pub model_name: String,
    /// Largest batch of one request.
    pub max_batch: usize,
    /// Most tokens that one request may have generated.
    pub max_tokens: usize,
    /// Threads that compute heads.
    pub threads: usize,
    /// Threads that share one tensor operation of each of them; 0: as many as there are cores.
    pub kernel_threads: usize,
    /// How many times slower than this machine the edge computes: a slower device, emulated by waiting.
    pub compute_scale: f64,
    /// Requests that may wait for them; more are refused.
    pub queue: usize,
    /// Samples of clients' requests whose heads are computed together and whose activations cross as one; 1: each
    /// request by itself.
    pub micro_batch: usize,
    /// How long a request waits for others to come, ms; without it, only while threads are busy.
    pub micro_batch_delay_ms: f64,
    /// Sequences that are continued at once.
    pub max_sessions: usize,
    /// Memory of all their caches, bytes.
    pub max_cache_bytes: usize,
    /// How long a client may leave tokens unread before its sequence is ended, s.
    pub session_idle_s: u64,
    /// How long a request may take, waiting included, ms.
    pub deadline_ms: u64,
}

/// Whether exits of the head answer (`edge-node exits`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitsConfig {
    pub enabled: bool,
    /// Softmax probability of its answer from which on an exit answers alone; 1: none does while there
    /// is a cloud.
    pub threshold: f64,
    /// Whether the deepest exit answers when the cloud does not.
    pub when_offline: bool,
}

/// How `edge-node prepare` treats the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrepareConfig {
    /// Each FP32 feature or channel to mean 0 and standard deviation 1.
    pub normalise: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunsConfig {
    /// Checkpoints, metrics and the note of what is deployed.
    pub dir: PathBuf,
    /// Where every checkpoint is copied to as well: `s3://BUCKET/PREFIX` or `file:///FOLDER`.
    pub store: Option<String>,
}

impl RunsConfig {
    /// The checkpoints of a node, `edge` or `cloud`.
    pub fn open(&self, node: &str) -> Result<RunStore, String> {
        match &self.store {
            None => Ok(RunStore::new(self.dir.join(node))),
            Some(url) => RunStore::with_copies(&self.dir, node, url, std::env::vars()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    /// What is written; followed while a node serves.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::default(), level: "info".into() }
    }
}

/// Where each request's trace goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceConfig {
    /// An OpenTelemetry collector's gRPC address, `http://host:4317`; nowhere without it.
    pub otlp: Option<String>,
    /// Share of the requests that are traced whose client has not decided, 0 to 1.
    pub share: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { otlp: None, share: 1.0 }
    }
}

impl Config {
    /// Stages before the cut.
    pub fn split(&self) -> usize {
        self.split_point.stages()
    }

    /// The weights that a node with this store has; opens the weight files.
    pub fn library(&self, store: Arc<RunStore>) -> Result<Library, String> {
        let library = Library::open(&self.model, store, self.weights.file.as_deref());
        library.map_err(|e| format!("weights.file: {e}"))
    }

    pub fn link_profile(&self) -> Profile {
        self.link.resolved.clone()
    }

    /// Of what is no deployment; a bottleneck belongs to one, and others send what they have.
    pub fn activation_codec(&self) -> SharedCodec {
        if LearnedName::is_meant(&self.codec.activation) {
            return Arc::new(F32);
        }
        codec::by_name(&self.codec.activation).expect("checked when the config was loaded")
    }

    pub fn gradient_codec(&self) -> SharedCodec {
        codec::by_name(&self.codec.gradient).expect("checked when the config was loaded")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            split_point: SplitPoint::Fixed(4),
            seed: 7,
            model: ModelSpec::Lenet(LenetSpec {
                input: [1, 8, 8],
                channels: vec![32, 64],
                hidden: vec![128],
                classes: 10,
            }),
            weights: WeightsConfig::default(),
            quantize: QuantizeConfig::default(),
            codec: CodecConfig::default(),
            link: LinkConfig::default(),
            cloud: CloudConfig::default(),
            edge: EdgeConfig::default(),
            plan: PlanConfig::default(),
            exits: ExitsConfig::default(),
            train: TrainConfig::default(),
            data: DataSpec::Digits,
            prepare: PrepareConfig::default(),
            runs: RunsConfig::default(),
            security: SecurityConfig::default(),
            log: LogConfig::default(),
            trace: TraceConfig::default(),
        }
    }
}

impl Default for CodecConfig {
    fn default() -> Self {
        let allowed = codec::FAMILIES.map(String::from).to_vec();
        Self { activation: "f32".into(), gradient: "f32".into(), allowed }
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { profile: DEFAULT_PROFILE.into(), seed: 1, resolved: default_profile() }
    }
}

const DEFAULT_PROFILE: &str = "5g-midband";

fn default_profile() -> Profile {
    Profile::builtin(DEFAULT_PROFILE).expect("comes with Cleave")
}

impl CloudConfig {
    /// How it computes.
    pub fn machine(&self) -> Machine {
        Machine::new(self.kernel_threads)
    }

    pub fn batch_delay(&self) -> Duration {
        Duration::from_secs_f64(self.batch_delay_ms / 1e3)
    }
}

impl EdgeConfig {
    /// How it computes: as the device that it stands for.
    pub fn machine(&self) -> Machine {
        Machine { kernel_threads: self.kernel_threads, scale: self.compute_scale }
    }

    pub fn micro_batch_delay(&self) -> Duration {
        Duration::from_secs_f64(self.micro_batch_delay_ms / 1e3)
    }
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 50051).into(),
            metrics_listen: None,
            threads: 2,
            kernel_threads: 0,
            queue: 256,
            max_batch: 1,
            batch_delay_ms: 0.0,
            max_activation_bytes: 512 << 20,
            max_tails: 8,
            max_runs: 16,
            max_sessions: 64,
            max_cache_bytes: 1 << 30,
            session_idle_s: 60,
        }
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            cloud: "http://127.0.0.1:50051".into(),
            standby: Vec::new(),
            shuffle: false,
            retries: 3,
            fallback: Fallback::Refuse,
            grpc_listen: ([127, 0, 0, 1], 8001).into(),
            http_listen: ([127, 0, 0, 1], 8000).into(),
            admin_token: None,
            model_name: "digits".into(),
            max_batch: 1024,
            max_tokens: 4096,
            threads: 2,
            kernel_threads: 0,
            compute_scale: 1.0,
            queue: 256,
            micro_batch: 1,
            micro_batch_delay_ms: 0.0,
            max_sessions: 64,
            max_cache_bytes: 1 << 30,
            session_idle_s: 60,
            deadline_ms: 5_000,
        }
    }
}

impl Default for ExitsConfig {
    fn default() -> Self {
        Self { enabled: false, threshold: 0.9, when_offline: true }
    }
}

impl Default for PrepareConfig {
    fn default() -> Self {
        Self { normalise: true }
    }
}

impl Default for RunsConfig {
    fn default() -> Self {
        Self { dir: "runs".into(), store: None }
    }
}
