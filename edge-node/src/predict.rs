//! One prediction: head here, tail in the cloud, the time of each part.

use std::{sync::Arc, time::Instant};

use cleave_shared::{
    compute::{ComputeError, ComputePool},
    config::Config,
    data::INPUT,
    model::ModelError,
    tensor::HostTensor,
    wire::{self, NamedTensors},
};
use tokio::sync::watch;
use tower::{BoxError, ServiceExt};

use crate::{
    cloud::{InferAnswer, InferCall, explain},
    deploy::Deployment,
    serve::{InferError, ModelInfo, Prediction, Predictor, Timing},
    stack::CloudCall,
};

/// The deployment in force; none until the first one is agreed with the cloud.
pub type Current = watch::Receiver<Option<Arc<Deployment>>>;

/// Runs requests on whatever is deployed when they come.
pub struct SplitPredictor {
    config: Config,
    current: Current,
    pool: ComputePool,
    cloud: CloudCall,
}

impl SplitPredictor {
    pub fn new(config: Config, current: Current, pool: ComputePool, cloud: CloudCall) -> Self {
        Self { config, current, pool, cloud }
    }

    fn deployed(&self) -> Result<Arc<Deployment>, InferError> {
        let deployed = self.current.borrow().clone();
        deployed.ok_or_else(|| {
            let cloud = &self.config.edge.cloud;
            InferError::Unavailable(format!(
                "nothing is deployed yet: the cloud at {cloud} has not agreed; try again later"
            ))
        })
    }

    /// The head, and its output ready to be sent.
    async fn head(
        &self,
        deployed: Arc<Deployment>,
        input: HostTensor,
    ) -> Result<(NamedTensors, f64), InferError> {
        let job = move || {
            let begin = Instant::now();
            let inputs = deployed.normalise(vec![(INPUT.to_string(), input)]);
            let output = deployed.head.infer(&inputs);
            (output, ms_since(begin))
        };
        let (output, head_ms) = self.pool.run(job).await.map_err(compute_error)?;
        Ok((output.map_err(model_error)?, head_ms))
    }

    async fn tail(
        &self,
        deployed: &Deployment,
        activation: NamedTensors,
        batch: usize,
        timing: &mut Timing,
    ) -> Result<NamedTensors, InferError> {
        let codec = self.config.activation_codec();
        let begin = Instant::now();
        let activation = wire::encode(activation, codec);
        timing.encode_ms = ms_since(begin);
        let elements: usize = self.config.model.output_shape().iter().product();
        let output_bytes = batch * elements * 4;
        let agreement = deployed.agreement.clone();
        let call = InferCall { agreement, activation, output_bytes };
        let answer = self.cloud.clone().oneshot(call).await;
        let InferAnswer { reply, uplink_ms, downlink_ms } =
            answer.map_err(|e| cloud_error(&self.config.edge.cloud, e))?;
        timing.uplink_ms = uplink_ms;
        // What the cloud does beside the tail belongs to the codec; waiting belongs to the tail.
        timing.tail_ms = reply.tail_ms + reply.queue_ms;
        timing.downlink_ms = downlink_ms;
        let begin = Instant::now();
        let output = wire::decode(reply.output, codec)
            .map_err(|e| InferError::Internal(format!("the cloud's answer: {e}")))?;
        timing.encode_ms += reply.encode_ms;
        timing.decode_ms = ms_since(begin) + reply.decode_ms;
        Ok(output)
    }
}

impl Predictor for SplitPredictor {
    fn model(&self) -> ModelInfo {
        let (spec, edge) = (&self.config.model, &self.config.edge);
        let version = self.current.borrow().as_ref().map(|d| d.version());
        ModelInfo {
            name: edge.model_name.clone(),
            version: version.unwrap_or_else(|| "none".into()),
            platform: "cleave".into(),
            input_name: "input".into(),
            input_shape: spec.input_shape(),
            output_name: "logits".into(),
            output_shape: spec.output_shape(),
            max_batch: edge.max_batch,
        }
    }

    fn ready(&self) -> bool {
        self.current.borrow().is_some()
    }

    async fn predict(&self, input: HostTensor) -> Result<Prediction, InferError> {
        let deployed = self.deployed()?;
        let batch = input.shape().first().copied().unwrap_or(0);
        let (activation, head_ms) = self.head(deployed.clone(), input).await?;
        let mut timing = Timing { head_ms, ..Timing::default() };
        let output = if deployed.is_whole() {
            activation
        } else {
            self.tail(&deployed, activation, batch, &mut timing).await?
        };
        let split_point = deployed.target.split;
        match output.into_iter().next() {
            Some((_, output)) => Ok(Prediction { output, timing, split_point }),
            None => Err(InferError::Internal("the model gave no output".into())),
        }
    }
}

fn ms_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

fn compute_error(error: ComputeError) -> InferError {
    match error {
        ComputeError::Busy { .. } => InferError::Busy(error.to_string()),
        ComputeError::Panicked(_) => InferError::Internal(error.to_string()),
    }
}

fn model_error(error: ModelError) -> InferError {
    InferError::Internal(error.to_string())
}

/// Errors of the layers around the call, and of the call itself.
fn cloud_error(address: &str, error: BoxError) -> InferError {
    if error.is::<tower::load_shed::error::Overloaded>() {
        return InferError::Busy(
            "too many requests are on their way to the cloud; retry later".into(),
        );
    }
    if error.is::<tower::timeout::error::Elapsed>() {
        return InferError::Deadline(format!(
            "the cloud at {address} did not answer within edge.deadline_ms"
        ));
    }
    let Some(status) = error.downcast_ref::<tonic::Status>() else {
        return InferError::Internal(error.to_string());
    };
    let text = explain(address, status);
    match status.code() {
        tonic::Code::ResourceExhausted => InferError::Busy(text),
        tonic::Code::DeadlineExceeded => InferError::Deadline(text),
        // A connection that breaks in the middle of a call comes as one of these.
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
            InferError::Unavailable(text)
        }
        _ => InferError::Internal(text),
    }
}
