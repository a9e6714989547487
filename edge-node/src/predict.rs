//! One prediction: head here, tail in the cloud, the time of each part.
//!
//! Texts become token ids on the compute thread that runs the head.

use std::{sync::Arc, time::Instant};

use cleave_shared::{
    codec::F32,
    compute::{ComputeError, ComputePool},
    config::Config,
    model::ModelError,
    text::Tokenizer,
    wire::{self, NamedTensors},
};
use tokio::sync::watch;
use tower::{BoxError, ServiceExt};

use crate::{
    cloud::{InferAnswer, InferCall, explain},
    deploy::Deployment,
    exits::Left,
    ports,
    serve::{InferError, ModelInfo, Prediction, Predictor, Query, Timing},
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
    /// Of a model that takes token ids; texts are refused without it.
    tokenizer: Option<Tokenizer>,
}

impl SplitPredictor {
    pub fn new(
        config: Config,
        current: Current,
        pool: ComputePool,
        cloud: CloudCall,
        tokenizer: Option<Tokenizer>,
    ) -> Self {
        Self { config, current, pool, cloud, tokenizer }
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

    /// The head's output, and the bytes of the model's output that belongs to it.
    async fn head(
        &self,
        deployed: Arc<Deployment>,
        query: Query,
        exits: bool,
    ) -> Result<Head, InferError> {
        let exits = if exits { deployed.exits.clone() } else { Arc::default() };
        let threshold = self.config.exits.threshold;
        let (spec, tokenizer) = (self.config.model.clone(), self.tokenizer.clone());
        let job = move || {
            let begin = Instant::now();
            let inputs = match query {
                Query::Tensors(inputs) => deployed.normalise(inputs),
                Query::Texts(texts) => ports::tokens(&spec, tokenizer.as_ref(), &texts)?,
            };
            let mut output_bytes = ports::output_bytes(&spec, &inputs);
            let (inputs, head) = (ports::inside(&spec, inputs), &deployed.head);
            let (activation, left) = if exits.is_empty() {
                (head.infer(&inputs).map_err(model_error)?, None)
            } else {
                let (activation, left) =
                    Left::of(head, exits, &inputs, threshold).map_err(model_error)?;
                output_bytes = left.share_of_rest(output_bytes);
                (activation, Some(left))
            };
            Ok(Head { activation, left, output_bytes, ms: ms_since(begin) })
        };
        self.pool.run(job).await.map_err(compute_error)?
    }

    async fn tail(
        &self,
        deployed: &Deployment,
        activation: NamedTensors,
        output_bytes: usize,
        timing: &mut Timing,
    ) -> Result<NamedTensors, InferError> {
        let begin = Instant::now();
        let activation = wire::encode(activation, deployed.codec.as_ref());
        timing.encode_ms = ms_since(begin);
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
        let output = wire::decode(reply.output, &F32)
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
            inputs: spec.inputs(),
            outputs: spec.outputs(),
            takes_text: self.tokenizer.is_some(),
            max_batch: edge.max_batch,
        }
    }

    fn ready(&self) -> bool {
        self.current.borrow().is_some()
    }

    async fn predict(&self, query: Query, exits: bool) -> Result<Prediction, InferError> {
        let deployed = self.deployed()?;
        let Head { activation, left, output_bytes, ms } =
            self.head(deployed.clone(), query, exits).await?;
        let mut timing = Timing { head_ms: ms, ..Timing::default() };
        let output = if deployed.is_whole() || left.as_ref().is_some_and(Left::is_all) {
            Ok(activation)
        } else {
            self.tail(&deployed, activation, output_bytes, &mut timing).await
        };
        let (output, exits) = match left {
            None => (output?, None),
            Some(left) => {
                let (output, exits) = left.complete(output, self.config.exits.when_offline)?;
                (output, Some(exits))
            }
        };
        let outputs = ports::outside(&self.config.model, output)?;
        Ok(Prediction { outputs, timing, split_point: deployed.target.split, exits })
    }
}

/// What the head of one request gave.
struct Head {
    activation: NamedTensors,
    /// What exits have answered, if there are any.
    left: Option<Left>,
    /// Bytes of the output that is expected.
    output_bytes: usize,
    ms: f64,
}

fn ms_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

pub(crate) fn compute_error(error: ComputeError) -> InferError {
    match error {
        ComputeError::Busy { .. } => InferError::Busy(error.to_string()),
        ComputeError::Panicked(_) => InferError::Internal(error.to_string()),
    }
}

/// What a stage refuses although it passed the checks of a request, such as a length that is longer
/// than its sample.
fn model_error(error: ModelError) -> InferError {
    match error {
        ModelError::Input { .. } => InferError::BadInput(error.to_string()),
        _ => InferError::Internal(error.to_string()),
    }
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
    status_error(address, status)
}

/// What a client is told when the cloud answers with this.
pub(crate) fn status_error(address: &str, status: &tonic::Status) -> InferError {
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
