//! `edge-node bottleneck`: an encoder for the edge and a decoder for the cloud, trained across the link.
//!
//! The model stays as it is; both nodes freeze their half of it. The uncut model is the teacher: the edge
//! asks it once for each sample, as for any inference, and sends what it said as the labels of an ordinary
//! run of split training, whose loss is distillation. What comes of it is the run's folder on each node: the
//! encoder here, the decoder there. It is served as the codec `bottleneck:RUN`.

mod codec;
mod taught;

use std::{collections::HashMap, sync::Arc};

use cleave_shared::{
    config::{Config, MicroBatches, SplitPoint},
    data::{Batch, Feed, Part, Split},
    link::Link,
    model::{BottleneckSpec, LossKind, OptimizerSpec},
    session::{Schedule, Shape, Topology},
    tensor::DType,
};

pub use self::codec::{activation_codec, refuse_in_training};
use self::taught::Taught;
use crate::{
    bar::bar,
    chosen::Chosen,
    deploy::{Deployer, Target},
    split_model::SplitModel,
    stack,
    train::{Outcome, RunDir, RunRecord, Trainer, new_run_id},
};

/// Samples that the teacher is asked for at once.
const BATCH: usize = 128;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run whose model it is for; what is deployed without it.
    pub run: Option<String>,
    /// The bottleneck's own run id; a new one is made up without it.
    pub name: Option<String>,
    pub resume: bool,
    /// Split point; that of the model's run without it.
    pub at: Option<usize>,
    pub width: usize,
    pub stride: usize,
    pub epochs: u64,
    pub learning_rate: f64,
}

/// What a bottleneck came to.
pub struct Trained {
    pub outcome: Outcome,
    /// Bytes of one sample's activation, and of its code.
    pub bytes: [usize; 2],
}

/// Trains; the error is one line.
pub async fn train(config: &Config, options: &Options) -> Result<Trained, String> {
    let chosen = Chosen::open(config, options.run.as_deref())?;
    let (config, spec) = configure(&chosen, options);
    let port = spec.port(&config.model, config.split()).map_err(|e| format!("--at: {e}"))?;
    let shape = [&[1], &port.largest()[..]].concat();
    let code = spec.code_shape(&shape).ok_or("--stride: it does not fit the activation")?;
    let bytes = [port.bytes(), code.iter().product()];

    let link = Link::new(config.link_profile(), config.link.seed);
    let client = stack::client(&config, &link)?;
    let deployer = Deployer::new(&config, client.clone())?;
    let target = Target {
        split: config.split(),
        codec: config.codec.activation.clone(),
        weights: chosen.weights.clone(),
    };
    // Each node gets those stages of this cut that the other one holds.
    deployer.deploy(target).await?;

    let plain = chosen.feed()?;
    let split = plain.dataset().split(config.seed);
    let feed = taught(&config, &chosen, &plain, &split).await?;
    let record = RunRecord {
        start: Some(chosen.weights.to_string()),
        ..RunRecord::new(&config, chosen.prepared())
    };
    let name = options.name.clone().unwrap_or_else(|| new_run_id(&config));
    let dir = RunDir::open(&config, &record, name, options.resume)?;
    let mut trainer = Trainer::new(&config, feed, &split, dir, client, link, None)?;
    Ok(Trained { outcome: trainer.run().await?, bytes })
}

/// The model's configuration, with how its bottleneck is trained: only the new layers learn, at FP32.
fn configure(chosen: &Chosen, options: &Options) -> (Config, BottleneckSpec) {
    let mut config = chosen.config.clone();
    let spec = BottleneckSpec { width: options.width, stride: options.stride, seed: config.seed };
    config.split_point = SplitPoint::Fixed(options.at.unwrap_or(config.split()));
    config.codec = Default::default();
    let train = &mut config.train;
    train.bottleneck = Some(spec.clone());
    train.loss = LossKind::Distillation;
    train.epochs = options.epochs;
    train.optimizer = OptimizerSpec::Adam {
        learning_rate: options.learning_rate,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
    };
    train.schedule = Schedule { kind: Shape::Cosine, warmup_steps: 0, floor: 0.0 };
    train.micro_batches = MicroBatches::Fixed(1);
    train.topology = Topology::default();
    (train.clip_norm, train.lora, train.privacy, train.sparsity) = (None, None, None, 0.0);
    (config, spec)
}

/// Batches whose labels are the uncut model's logits.
async fn taught(
    config: &Config,
    chosen: &Chosen,
    plain: &Feed,
    split: &Split,
) -> Result<Feed, String> {
    let ports = config.model.outputs();
    let width = match &ports[..] {
        [port] if port.dtype == DType::F32 && port.shape.len() == 1 => port.largest()[0],
        _ => {
            let family = config.model.family_name();
            return Err(format!("bottleneck: a {family} gives no logits of classes to learn from"));
        }
    };
    let teacher = SplitModel::open(config, &chosen.weights)?;
    let mut logits = HashMap::new();
    for part in [Part::Train, Part::Validation] {
        let chunks = split.indices(part).chunks(BATCH);
        for indices in bar("asking the uncut model", chunks.len()).wrap_iter(chunks) {
            let Batch { inputs, .. } = plain.batch(indices);
            let output = teacher.infer(inputs, indices.len()).await?;
            let values = output.to_f32().map_err(|e| e.to_string())?;
            let rows = values.chunks_exact(width).map(<[f32]>::to_vec);
            logits.extend(indices.iter().copied().zip(rows));
        }
    }
    let set = Taught::new(plain.dataset().clone(), logits, width);
    Feed::new(&config.model, LossKind::Distillation, Arc::new(set)).map_err(|e| e.to_string())
}
