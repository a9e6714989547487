//! The declarative model: what the config says, and the plan of stages it becomes.

use std::ops::Range;

use burn::tensor::Device;
use sha2::{Digest, Sha256};

use super::{
    AlexnetSpec, Block, LenetSpec, LinearRegressionSpec, MlpSpec, MobilenetV2Spec, ModelError, Params, Port, ResnetSpec, RnnSpec, Stage, VggSpec, Weights, stage::BlockStage, Gpt2Spec, LlamaSpec, BertSpec, FilterChain,
};

type Build =
    dyn Fn(&str, &mut dyn Weights, &Device) -> Result<Box<dyn Stage>, ModelError> + Send + Sync;

/// Bytes that a stage keeps of one sequence of this many positions.
type CacheBytes = dyn Fn(usize) -> usize + Send + Sync;

/// A stage that is not built yet: nothing is allocated until [`StagePlan::build`].
pub struct StagePlan {
    /// Letters, digits, `-` and `_`: the stage's files have this name.
    pub name: String,
    /// What leaves the stage, and crosses a cut behind it.
    pub outputs: Vec<Port>,
    /// Floating-point operations of one sample at its largest, two for a multiply and add; of matrix
    /// products and convolutions only, as is customary.
    pub flops: u64,
    build: Box<Build>,
    cache: Box<CacheBytes>,
}

impl StagePlan {
    pub fn new<B: Block>(
        name: impl Into<String>,
        outputs: Vec<Port>,
        flops: usize,
        build: impl Fn(&mut Params<'_>) -> Result<B, ModelError> + Send + Sync + 'static,
    ) -> Self {
        let build = move |name: &str, weights: &mut dyn Weights, device: &Device| {
            let mut params = Params::new(weights, device);
            let block = build(&mut params)?;
            Ok(BlockStage::boxed(name, block, params.into_names()))
        };
        let (name, flops, build) = (name.into(), flops as u64, Box::new(build));
        Self { name, outputs, flops, build, cache: Box::new(|_| 0) }
    }

    /// Says what the stage keeps of one sequence of so many positions while it is generated, bytes.
    pub fn caching(self, bytes: impl Fn(usize) -> usize + Send + Sync + 'static) -> Self {
        Self { cache: Box::new(bytes), ..self }
    }

    /// Bytes that the stage keeps of one sequence of this many positions.
    pub fn cache_bytes(&self, positions: usize) -> usize {
        (self.cache)(positions)
    }

    pub fn build(
        &self,
        weights: &mut dyn Weights,
        device: &Device,
    ) -> Result<Box<dyn Stage>, ModelError> {
        (self.build)(&self.name, weights, device)
    }
}

/// What a model file provides.
pub trait ModelFamily {
    /// What one sample is, as clients name it. A model with one input names its tensor `x` inside.
    fn inputs(&self) -> Vec<Port>;
    /// What the last stage gives.
    fn outputs(&self) -> Vec<Port>;
    /// A reason why these sizes cannot be built.
    fn check(&self) -> Result<(), String>;
    /// A reason why this model can be run but not trained.
    fn check_training(&self) -> Result<(), String> {
        Ok(())
    }
    /// The longest sequence of tokens that the model continues; 0 if it does not generate.
    fn positions(&self) -> usize {
        0
    }
    /// All stages in order.
    fn stages(&self) -> Vec<StagePlan>;
    /// What weight files may put before, or leave out of, the names of parameters.
    fn prefixes(&self) -> &'static [&'static str] {
        &[]
    }
    /// Whether this weight of a linear layer is stored `[in, out]`, as GPT-2's `Conv1D` does (PEFT's
    /// `fan_in_fan_out`), and not `[out, in]`.
    fn is_input_major(&self, _weight: &str) -> bool {
        false
    }
    /// Convolutions that may lose filters, in order; see [`FilterChain`].
    fn filter_chain(&self) -> Option<FilterChain> {
        None
    }
}

/// Declares [`ModelSpec`]: a new family is one file and one line here.
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident($spec:ty) = $name:literal),+ $(,)?) => {
        /// A model by family and sizes.
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "family")]
        pub enum ModelSpec {
            $($(#[$doc])* #[serde(rename = $name)] $variant($spec),)+
        }

        impl ModelSpec {
            fn family(&self) -> &dyn ModelFamily {
                match self {
                    $(ModelSpec::$variant(spec) => spec,)+
                }
            }

            pub fn family_name(&self) -> &'static str {
                match self {
                    $(ModelSpec::$variant(_) => $name,)+
                }
            }
        }
    };
}

families! {
    Gpt2(Gpt2Spec) = "gpt2",
    Bert(BertSpec) = "bert",
    Lenet(LenetSpec) = "lenet",
    LinearRegression(LinearRegressionSpec) = "linear-regression",
    Llama(LlamaSpec) = "llama",
    Mlp(MlpSpec) = "mlp",
    Rnn(RnnSpec) = "rnn",
    Alexnet(AlexnetSpec) = "alexnet",
    Vgg(VggSpec) = "vgg",
    Resnet(ResnetSpec) = "resnet",
    MobilenetV2(MobilenetV2Spec) = "mobilenetv2",
}

impl ModelSpec {
    pub fn inputs(&self) -> Vec<Port> {
        self.family().inputs()
    }

    pub fn outputs(&self) -> Vec<Port> {
        self.family().outputs()
    }

    /// Shape of the first input at its largest, without the batch.
    pub fn input_shape(&self) -> Vec<usize> {
        self.inputs()[0].largest()
    }

    /// Shape of the first output at its largest, without the batch.
    pub fn output_shape(&self) -> Vec<usize> {
        self.outputs()[0].largest()
    }

    pub fn stages(&self) -> Vec<StagePlan> {
        self.family().stages()
    }

    /// See [`ModelFamily::prefixes`].
    pub fn prefixes(&self) -> &'static [&'static str] {
        self.family().prefixes()
    }

    /// See [`ModelFamily::positions`].
    pub fn positions(&self) -> usize {
        self.family().positions()
    }

    /// Refuses a model that cannot be trained.
    pub fn check_training(&self) -> Result<(), ModelError> {
        self.family().check_training().map_err(ModelError::Training)
    }

    /// Bytes that stages `range` keep of one sequence of this many positions.
    pub fn cache_bytes(&self, range: Range<usize>, positions: usize) -> usize {
        self.stages()[range].iter().map(|plan| plan.cache_bytes(positions)).sum()
    }

    /// See [`ModelFamily::is_input_major`].
    pub fn is_input_major(&self, weight: &str) -> bool {
        self.family().is_input_major(weight)
    }

    /// See [`ModelFamily::filter_chain`].
    pub fn filter_chain(&self) -> Option<FilterChain> {
        self.family().filter_chain()
    }

    pub fn stage_names(&self) -> Vec<String> {
        self.stages().into_iter().map(|p| p.name).collect()
    }

    /// N: the split point may be 0..=N.
    pub fn stage_count(&self) -> usize {
        self.stages().len()
    }

    /// Refuses sizes that no stage could be built for.
    pub fn check(&self) -> Result<(), String> {
        self.family().check()
    }

    /// Refuses a split point past the last stage.
    pub fn check_split(&self, split: usize) -> Result<(), ModelError> {
        let stages = self.stage_count();
        if split <= stages {
            return Ok(());
        }
        Err(ModelError::Split { split, stages, model: self.family_name() })
    }

    /// The spec as JSON with a fixed field order: what the handshake compares.
    pub fn canonical(&self) -> String {
        serde_json::to_string(self).expect("a spec is plain data")
    }

    /// SHA-256 of [`ModelSpec::canonical`], in hex.
    pub fn hash(&self) -> String {
        let digest: [u8; 32] = Sha256::digest(self.canonical().as_bytes()).into();
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Refuses a size that no layer can have.
pub(super) fn sizes_in_range(sizes: impl IntoIterator<Item = usize>) -> Result<(), String> {
    match sizes.into_iter().find(|&n| n == 0 || n > 1 << 20) {
        Some(bad) => Err(format!("size {bad} is out of range (1..=1048576)")),
        None => Ok(()),
    }
}
