//! A model is an ordered list of named stages that can be cut at every boundary.
//!
//! A [`ModelSpec`] (from the config) plans the stages; [`Segment::build`] makes a range of them, so
//! that a node allocates only its own. At split point `k` the head is stages `0..k` and the tail
//! `k..N`; `k = 0` is all in the cloud, `k = N` all on the edge. What crosses the cut is an
//! [`Activation`]: named tensors. Weights come from a [`Weights`] source and depend only on the
//! seed and the parameter's name, never on where the cut is.

mod activation;
mod alexnet;
mod batch_norm;
mod bert;
mod blocks;
mod bottleneck;
mod conv;
mod decoder;
mod exit;
mod filters;
mod gpt2;
mod gradients;
mod inspect;
mod lenet;
mod linear;
mod linear_regression;
mod llama;
pub mod lora;
pub mod loss;
mod matrices;
mod mlp;
mod mobilenet;
pub mod named;
mod norm;
mod optimizer;
mod params;
mod pass;
mod port;
mod presets;
mod quantize;
mod recurrent;
mod resnet;
mod rnn;
mod segment;
mod shelf;
mod sparsity;
mod spec;
mod stage;
mod training;
mod vgg;
mod weights;

pub use self::{
    activation::{Activation, Value},
    alexnet::AlexnetSpec,
    bert::{BertAct, BertHead, BertSpec},
    bottleneck::{BottleneckSpec, DECODER, ENCODER},
    decoder::RopeScaling,
    exit::{
        EXIT_BIAS, EXIT_WEIGHT, Exit, ExitAnswer, ExitHead, Passage, confidence, exit_sizes, pooled,
    },
    filters::{Consumer, FilterChain, FilterLayer, prune_filters},
    gpt2::Gpt2Spec,
    gradients::Update,
    inspect::{CutInfo, Inspection, StageInfo, TensorInfo},
    lenet::LenetSpec,
    linear_regression::LinearRegressionSpec,
    llama::LlamaSpec,
    lora::{LoraSpec, MergedWeights, Side, Sides},
    loss::LossKind,
    mlp::MlpSpec,
    mobilenet::MobilenetV2Spec,
    named::model_by_name,
    optimizer::OptimizerSpec,
    params::{Init, ParamSpec, Params, param_id},
    pass::{BufferUpdates, Mode, Pass, StageCache},
    port::{Dim, Port},
    quantize::WeightFormat,
    recurrent::Cell,
    resnet::{ResnetBlock, ResnetSpec},
    rnn::{RnnSpec, SequenceTask},
    segment::{Segment, SegmentCache, StageState},
    shelf::{Partial, StageShelf},
    sparsity::prune_smallest,
    spec::{ModelFamily, ModelSpec, StagePlan},
    stage::{Block, Stage},
    training::{ForwardPass, LossPass},
    vgg::VggSpec,
    weights::{FileWeights, LoadedWeights, SeededWeights, WeightFile, WeightFileError, Weights},
};
use self::{
    linear::{Linear, project},
    norm::{LayerNorm, Norm, RmsNorm},
};

/// Why a model could not be built or run on this input.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error("stage {stage}: expected {expected}, found {found}")]
    Input { stage: String, expected: String, found: String },
    #[error("weight {name}: {problem}")]
    Weight { name: String, problem: String },
    #[error("split point {split} is out of range: {model} has stages 0..={stages}")]
    Split { split: usize, stages: usize, model: &'static str },
    #[error("training: {0}")]
    Training(String),
    #[error("{model} cannot be pruned: {problem}")]
    Prune { model: &'static str, problem: String },
    #[error("labels: {0}")]
    Labels(String),
    #[error("gradient: {0}")]
    Gradient(String),
    #[error("optimiser state of stage {stage}: {problem}")]
    Optimizer { stage: String, problem: String },
}
