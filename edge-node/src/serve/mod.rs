//! How applications reach the edge node: the Open Inference Protocol v2, over gRPC and over REST.
//!
//! The protocol of KServe and Triton is used so that existing clients work unchanged and need not
//! know that the model is split. The layers:
//!
//! - [`Predictor`] is the seam to the rest of the edge node: checked tensors (or texts, for a model that
//!   takes token ids) in, outputs and what each stage took out. Nothing in this module knows about
//!   splitting, codecs or the cloud.
//! - `request` holds every rule about what is a valid request, once for both transports; `input` those
//!   about one tensor, `text_input` those about texts.
//! - `grpc` and `rest` only translate: messages and bodies in, responses and errors out. The REST
//!   side has two helpers of its own: `rest_body` (JSON and binary framing) and `json_data` (nested
//!   number lists).
//! - `grpc_stream` is `ModelStreamInfer`, token by token; `openai` has the same for OpenAI's clients.
//!   Both are forms of `text`, which makes text of what a [`Generator`] yields.
//! - `control` is the rest of the protocol: statistics, the repository, settings; `gate` unloads, `access` says who may.
//! - `http` is the server under the REST routes.
//! - `error` gives each failure its gRPC code and its HTTP status.

mod access;
mod control;
mod error;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_generator;
mod gate;
mod generator;
mod grpc;
mod grpc_stream;
mod grpc_stream_request;
mod http;
mod input;
mod json_data;
mod metrics;
mod openai;
mod request;
mod rest;
mod rest_body;
mod text;
#[cfg(test)]
mod text_clients_tests;
mod text_input;

/// Parameter of a request: false keeps exits from answering it.
const EXITS: &str = "exits";

use cleave_shared::{deadline::Deadline, model::Port, wire::NamedTensors};

pub use access::{Access, Refused};
pub use control::{Control, Durations, InferenceStats, Statistics, control_router};
pub use error::{InferError, http_error};
pub use gate::{Gate, Gated};
pub use generator::{Event, Events, Finish, Generation, Generator, Sampling};
pub use grpc::{GrpcInference, GrpcService, grpc_service};
pub use http::serve_http;
pub use metrics::metrics_router;
pub use openai::openai_router;
pub use request::TEXT_DTYPE;
pub use rest::rest_router;
pub use rest_body::parse as parse_request;
pub use text::{TextFiles, TextService};

/// Name that server metadata reports.
pub const SERVER_NAME: &str = "cleave";

/// Version that server metadata reports.
pub const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Optional parts of the protocol that are implemented, by the names that Triton gives them.
pub const SERVER_EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "parameters",
    "model_configuration",
    "model_repository",
    "statistics",
    "trace",
    "logging",
];

/// What runs a validated request.
pub trait Predictor: Send + Sync + 'static {
    /// The model being served; cheap, since every request asks.
    fn model(&self) -> ModelInfo;

    /// Whether a prediction started now would be attempted.
    fn ready(&self) -> bool;

    /// Runs the model on one batch. The query is already checked against [`Predictor::model`].
    fn predict(
        &self,
        request: InferRequest,
    ) -> impl Future<Output = Result<Prediction, InferError>> + Send;
}

/// What a client needs to know about the model to use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    pub name: String,
    pub version: String,
    /// What runs the model: `cleave`.
    pub platform: String,
    /// FP32 or INT64 each. Extents that vary are the same at the same place of all of them: the length
    /// of a sequence.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Whether texts may be sent in place of token ids.
    pub takes_text: bool,
    /// Largest batch that one request may carry.
    pub max_batch: usize,
}

/// One valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferRequest {
    pub query: Query,
    /// Whether exits may answer, if there are any.
    pub exits: bool,
    /// When its client stops waiting, if it says so.
    pub deadline: Option<Deadline>,
}

/// A request that says nothing beside its input.
impl From<Query> for InferRequest {
    fn from(query: Query) -> Self {
        Self { query, exits: true, deadline: None }
    }
}

/// The input of one valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// By the names of [`ModelInfo::inputs`], in their order, all of one batch; optional ones may be
    /// missing.
    Tensors(NamedTensors),
    /// One text for each sample, to be made into token ids.
    Texts(Vec<String>),
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// All of [`ModelInfo::outputs`], in their order.
    pub outputs: NamedTensors,
    pub timing: Timing,
    /// Layers that ran on the edge before the rest was left to the cloud.
    pub split_point: usize,
    /// Where the samples left, if there were exits for them.
    pub exits: Option<ExitUse>,
}

/// Which exits answered a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitUse {
    /// The stage behind which a sample left, or "none": one name for all of the batch, or one for each
    /// with commas between.
    pub exit: String,
    /// Softmax probability of the answer that is least sure.
    pub confidence: f64,
    /// Whether exits answered because the cloud did not.
    pub offline: bool,
}

/// What each stage of one prediction took, in milliseconds; 0 for a stage that did not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Timing {
    pub head_ms: f64,
    pub encode_ms: f64,
    pub uplink_ms: f64,
    pub tail_ms: f64,
    pub downlink_ms: f64,
    pub decode_ms: f64,
}

impl std::ops::AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.head_ms += other.head_ms;
        self.encode_ms += other.encode_ms;
        self.uplink_ms += other.uplink_ms;
        self.tail_ms += other.tail_ms;
        self.downlink_ms += other.downlink_ms;
        self.decode_ms += other.decode_ms;
    }
}

impl Timing {
    /// All parts, one after the other.
    pub fn total_ms(&self) -> f64 {
        self.parameters().iter().map(|(_, ms)| ms).sum()
    }

    /// The stages with the names that response parameters use.
    pub fn parameters(&self) -> [(&'static str, f64); 6] {
        [
            ("head_ms", self.head_ms),
            ("encode_ms", self.encode_ms),
            ("uplink_ms", self.uplink_ms),
            ("tail_ms", self.tail_ms),
            ("downlink_ms", self.downlink_ms),
            ("decode_ms", self.decode_ms),
        ]
    }
}
