//! The declarative model: what the config says, and the plan of stages it becomes.

use burn::tensor::Device;
use sha2::{Digest, Sha256};

use super::{
    AlexnetSpec, BertSpec, Block, LenetSpec, LinearRegressionSpec, MlpSpec, MobilenetV2Spec,
    ModelError, Params, Port, ResnetSpec, RnnSpec, Stage, VggSpec, Weights, stage::BlockStage,
};

type Build =
    dyn Fn(&str, &mut dyn Weights, &Device) -> Result<Box<dyn Stage>, ModelError> + Send + Sync;

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
        Self { name: name.into(), outputs, flops: flops as u64, build: Box::new(build) }
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
    /// All stages in order.
    fn stages(&self) -> Vec<StagePlan>;
    /// What weight files may put before, or leave out of, the names of parameters.
    fn prefixes(&self) -> &'static [&'static str] {
        &[]
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
    Bert(BertSpec) = "bert",
    Lenet(LenetSpec) = "lenet",
    LinearRegression(LinearRegressionSpec) = "linear-regression",
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
