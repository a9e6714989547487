//! A model with its weights as a function: inputs to outputs, head here and tail in the cloud.
//!
//! Unlike a deployment it is nobody's service: it takes the weights as they were cut and trained, pins
//! nothing and changes nothing.

use std::sync::Arc;

use cleave_shared::{
    checkpoint::WeightsId,
    codec::{F32, SharedCodec},
    compute::ComputePool,
    config::Config,
    link::Link,
    model::Segment,
    tensor::HostTensor,
    wire::{self, NamedTensors, v1::Agreement},
};

use crate::{
    cloud::{CloudClient, InferCall, explain},
    stack,
};

/// One batch at a time, and one that waits.
const QUEUE: usize = 2;

/// Both halves of one set of weights.
pub struct SplitModel {
    head: Arc<Segment>,
    pool: ComputePool,
    cloud: CloudClient,
    agreement: Agreement,
    codec: SharedCodec,
    /// Whether the head is all of it.
    whole: bool,
    /// Bytes of the output of one sample.
    output: usize,
}

impl SplitModel {
    /// `config` is that of the weights; its model and split point are used.
    pub fn open(config: &Config, weights: &WeightsId) -> Result<Self, String> {
        let store = Arc::new(config.runs.open("edge")?);
        let library = config.library(store)?;
        let (spec, split) = (&config.model, config.split());
        let stages = &spec.stage_names()[..split];
        let mut source = library.source(weights, stages).map_err(|e| e.to_string())?;
        let head = Segment::build_in(config.quantize.weights, spec, 0..split, source.as_mut());
        let link = Link::new(config.link_profile(), config.link.seed);
        Ok(Self {
            head: Arc::new(head.map_err(|e| format!("{weights}: {e}"))?),
            pool: ComputePool::new(1, QUEUE, config.edge.machine()),
            cloud: stack::client(config, &link)?,
            agreement: config.agreement(split, &weights.to_string()),
            codec: config.activation_codec(),
            whole: split == spec.stage_count(),
            output: spec.outputs().iter().map(|p| p.bytes()).sum(),
        })
    }

    /// Bytes of the output of one sample.
    pub fn output_bytes(&self) -> usize {
        self.output
    }

    /// The first output of a batch of `samples`.
    pub async fn infer(&self, inputs: NamedTensors, samples: usize) -> Result<HostTensor, String> {
        let head = self.head.clone();
        let activation = self.pool.run(move || head.infer(&inputs)).await;
        let activation = activation.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let output = match self.whole {
            true => activation,
            false => {
                let call = InferCall {
                    agreement: self.agreement.clone(),
                    activation: wire::encode(activation, self.codec.as_ref()),
                    output_bytes: samples * self.output,
                    deadline: None,
                };
                let answer = self.cloud.infer(call).await;
                let answer = answer.map_err(|s| explain(self.cloud.address(), &s))?;
                wire::decode(answer.reply.output, &F32)
                    .map_err(|e| format!("the cloud's answer: {e}"))?
            }
        };
        let first = output.into_iter().next();
        first.map(|(_, tensor)| tensor).ok_or_else(|| "the model gave no output".into())
    }
}
