//! One prediction: head here, tail in the cloud, the time of each part.
//!
//! Texts become token ids on the compute thread that runs the head. Requests that wait at the same time may share one
//! prediction ([`Gathered`]).

mod error;
mod gather;
mod line;
mod micro_batch;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use cleave_shared::{
    codec::F32,
    compute::{ComputePool, Estimate},
    config::Config,
    deadline::Deadline,
    model::ModelSpec,
    telemetry::trace,
    text::Tokenizer,
    wire::{self, NamedTensors, v1},
};
use futures_util::future::{self, Either};
use tokio::sync::{Notify, oneshot, watch};
use tower::ServiceExt;

use self::error::{cloud_error, model_error};
pub(crate) use self::error::{compute_error, status_error};
pub use self::gather::Gathered;
use crate::{
    adapt::{HeadRun, Seen},
    cloud::{InferAnswer, InferCall},
    deploy::Deployment,
    exits::Left,
    ports,
    serve::{InferError, InferRequest, ModelInfo, Prediction, Predictor, Query, Timing},
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
    spare: Option<Spare>,
    /// Who learns from what the head takes.
    seen: Arc<Seen>,
    /// What the way to the cloud and back and the tail take, without waiting for a thread there.
    rest: Estimate,
}

/// The whole model, if it is at hand: it answers what the cloud leaves unanswered, or answers late.
struct Spare {
    whole: Current,
    /// How long the cloud's answer is awaited before the whole model begins as well.
    patience: watch::Receiver<Option<Duration>>,
}

impl SplitPredictor {
    pub fn new(
        config: Config,
        current: Current,
        pool: ComputePool,
        cloud: CloudCall,
        tokenizer: Option<Tokenizer>,
    ) -> Self {
        let seen = Arc::default();
        let rest = Estimate::default();
        Self { config, current, pool, cloud, tokenizer, spare: None, seen, rest }
    }

    /// Tells this what the head takes.
    pub fn seen_by(self, seen: Arc<Seen>) -> Self {
        Self { seen, ..self }
    }

    /// Falls back on the whole model here when the cloud does not answer, or not in time.
    pub fn with_spare(self, whole: Current, patience: watch::Receiver<Option<Duration>>) -> Self {
        Self { spare: Some(Spare { whole, patience }), ..self }
    }

    /// The whole model of the same weights, and how long the cloud has before it begins.
    fn spare(&self, deployed: &Deployment) -> Option<(Arc<Deployment>, Duration)> {
        let Spare { whole, patience } = self.spare.as_ref()?;
        let whole = whole.borrow().clone()?;
        let patience = patience.borrow().unwrap_or(Duration::MAX);
        let same = whole.target.weights == deployed.target.weights;
        (same && !deployed.is_whole()).then_some((whole, patience))
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

    /// By when the head has to be done. What the rest usually leaves is for waiting, half of it here and half in the cloud:
    /// a head that leaves nothing for the tail's turn would be computed in vain.
    fn head_by(&self, deployed: &Deployment, deadline: Option<Deadline>) -> Option<Deadline> {
        let deadline = deadline?;
        if deployed.is_whole() {
            return Some(deadline);
        }
        let left = deadline.left();
        // Not more than half, however bad the link has been of late.
        let rest = self.rest.upper().min(left / 2);
        Some(Deadline::after((left - rest) / 2))
    }

    /// The head's output, and the bytes of the model's output that belongs to it.
    async fn head(
        &self,
        deployed: Arc<Deployment>,
        request: InferRequest,
    ) -> Result<Head, InferError> {
        let InferRequest { query, exits, deadline } = request;
        let by = self.head_by(&deployed, deadline);
        let exits = if exits { deployed.exits.clone() } else { Arc::default() };
        let threshold = self.config.exits.threshold;
        let (spec, tokenizer) = (self.config.model.clone(), self.tokenizer.clone());
        // Times inside a job are this machine's; the device that is emulated takes so many times as long.
        let scale = self.pool.scale();
        let queued = Instant::now();
        let job = move || {
            let queue_ms = ms_since(queued);
            let begin = Instant::now();
            let inputs = named(&deployed, query, &spec, tokenizer.as_ref())?;
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
            let head_ms = scale * ms_since(begin);
            let begin = Instant::now();
            let result = match deployed.is_whole() || left.as_ref().is_some_and(Left::is_all) {
                true => HeadResult::Answer(activation),
                false => HeadResult::Sent(wire::encode(activation, deployed.codec.as_ref())),
            };
            let encode_ms = scale * ms_since(begin);
            Ok(Head { result, left, output_bytes, queue_ms, head_ms, encode_ms })
        };
        self.pool.run_by(by, job).await.map_err(compute_error)?
    }

    /// What this query sends across the cut, as the cloud decodes it; nothing is sent.
    pub async fn smashed(&self, query: Query) -> Result<Smashed, InferError> {
        let deployed = self.deployed()?;
        let (spec, tokenizer) = (self.config.model.clone(), self.tokenizer.clone());
        let job = move || {
            let split_point = deployed.target.split;
            let codec = deployed.codec.name().to_string();
            if deployed.is_whole() {
                return Ok(Smashed { split_point, codec, bytes: 0, tensors: Vec::new() });
            }
            let inputs = named(&deployed, query, &spec, tokenizer.as_ref())?;
            let activation = deployed.head.infer(&ports::inside(&spec, inputs));
            let sent = wire::encode(activation.map_err(model_error)?, deployed.codec.as_ref());
            let bytes = sent.iter().map(|tensor| tensor.data.len()).sum();
            let tensors = wire::decode(sent, deployed.codec.as_ref())
                .map_err(|e| InferError::Internal(format!("codec {codec}: {e}")))?;
            Ok(Smashed { split_point, codec, bytes, tensors })
        };
        self.pool.run(job).await.map_err(compute_error)?
    }

    async fn tail(&self, call: InferCall, timing: &mut Timing) -> Result<NamedTensors, InferError> {
        let begin = Instant::now();
        let answer = self.cloud.clone().oneshot(call).await;
        let InferAnswer { reply, uplink_ms, downlink_ms } =
            answer.map_err(|e| cloud_error(&self.config.edge.cloud, e))?;
        let waited = Duration::try_from_secs_f64(reply.queue_ms / 1e3).unwrap_or_default();
        self.rest.observe(begin.elapsed().saturating_sub(waited));
        trace::record("uplink", ms_since(begin), uplink_ms);
        trace::record("downlink", downlink_ms, downlink_ms);
        timing.uplink_ms = uplink_ms;
        // What the cloud does beside the tail belongs to the codec; waiting belongs to the tail.
        timing.tail_ms = reply.tail_ms + reply.queue_ms;
        timing.downlink_ms = downlink_ms;
        let begin = Instant::now();
        let output = wire::decode(reply.output, &F32)
            .map_err(|e| InferError::Internal(format!("the cloud's answer: {e}")))?;
        timing.encode_ms += reply.encode_ms;
        timing.decode_ms = ms_since(begin) + reply.decode_ms;
        trace::record("decode", ms_since(begin), ms_since(begin));
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

    async fn predict(&self, request: InferRequest) -> Result<Prediction, InferError> {
        let due = self.due();
        self.predict_by(due, self.deployed()?, request, None).await
    }
}

/// Ends when a call has been on its way for longer than this; never if it does not leave. Time before it
/// leaves is this machine's own, and would not be shorter for another begin.
async fn late(leaves: oneshot::Receiver<()>, patience: Duration) {
    if leaves.await.is_err() {
        future::pending::<()>().await;
    }
    tokio::time::sleep(patience).await;
    tracing::debug!(?patience, "the cloud is late; the whole model here begins");
}

impl SplitPredictor {
    /// When the cloud's answer to a request that comes now is due.
    fn due(&self) -> Deadline {
        Deadline::after(Duration::from_millis(self.config.edge.deadline_ms))
    }

    /// As [`Predictor::predict`] with this deployment, for a request whose answer of the cloud is due then. `computed`
    /// is told when the head is done; it is dropped if there will be none.
    async fn predict_by(
        &self,
        due: Deadline,
        deployed: Arc<Deployment>,
        request: InferRequest,
        computed: Option<oneshot::Sender<()>>,
    ) -> Result<Prediction, InferError> {
        let client = request.deadline;
        let deadline = Some(client.map_or(due, |client| client.min(due)));
        let mut told: Vec<_> = computed.into_iter().collect();
        let Some((spare, patience)) = self.spare(&deployed) else {
            let request = InferRequest { deadline, ..request };
            return self.predict_on(deployed, request, told).await;
        };
        let (sent, leaves) = oneshot::channel();
        told.push(sent);
        let failed = Notify::new();
        let split = InferRequest { deadline, ..request.clone() };
        let with_cloud = pin!(self.predict_on(deployed, split, told));
        let here = pin!(async {
            future::select(pin!(late(leaves, patience)), pin!(failed.notified())).await;
            // Nobody else is left to answer: better late than not at all, as long as the client waits.
            self.predict_on(spare, request, Vec::new()).await
        });
        // Whoever has an answer first gives it; an error of one is no reason not to wait for the other.
        match future::select(with_cloud, here).await {
            Either::Left((Err(InferError::Unavailable(why) | InferError::Deadline(why)), here))
                if client.is_none_or(|client| !client.left().is_zero()) =>
            {
                tracing::debug!("answered by the whole model here: {why}");
                metrics::counter!("cleave_fallbacks_total").increment(1);
                failed.notify_one();
                here.await
            }
            Either::Right((Err(_), with_cloud)) => with_cloud.await,
            Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
        }
    }

    /// The cloud's answer is awaited until the request's deadline; `told` are told when the head is done and its
    /// activation leaves, if anything is left for the cloud.
    async fn predict_on(
        &self,
        deployed: Arc<Deployment>,
        request: InferRequest,
        told: Vec<oneshot::Sender<()>>,
    ) -> Result<Prediction, InferError> {
        let deadline = request.deadline;
        let Head { result, left, output_bytes, queue_ms, head_ms, encode_ms } =
            self.head(deployed.clone(), request).await?;
        for told in told {
            let _ = told.send(());
        }
        trace::record_parts(&[("queue", queue_ms), ("head", head_ms), ("encode", encode_ms)]);
        let mut timing = Timing { head_ms, ..Timing::default() };
        if left.is_none() {
            let (split, output_bytes) = (deployed.target.split, output_bytes as u64);
            self.seen.computed(HeadRun { split, ms: head_ms, output_bytes });
        }
        let output = match result {
            HeadResult::Answer(output) => Ok(output),
            HeadResult::Sent(activation) => {
                timing.encode_ms = encode_ms;
                let agreement = deployed.agreement.clone();
                let call = InferCall { agreement, activation, output_bytes, deadline };
                self.tail(call, &mut timing).await
            }
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
    result: HeadResult,
    /// What exits have answered, if there are any.
    left: Option<Left>,
    /// Bytes of the output that is expected.
    output_bytes: usize,
    /// Waited for a compute thread.
    queue_ms: f64,
    head_ms: f64,
    encode_ms: f64,
}

enum HeadResult {
    /// Nothing is left for the cloud.
    Answer(NamedTensors),
    /// What is sent.
    Sent(Vec<v1::Tensor>),
}

/// What crosses the cut for one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Smashed {
    pub split_point: usize,
    pub codec: String,
    /// As they are encoded.
    pub bytes: usize,
    /// As the cloud gets them; none where the whole model runs here.
    pub tensors: NamedTensors,
}

/// The model's inputs by their names, as the weights of a deployment want them.
fn named(
    deployed: &Deployment,
    query: Query,
    spec: &ModelSpec,
    tokenizer: Option<&Tokenizer>,
) -> Result<NamedTensors, InferError> {
    match query {
        Query::Tensors(inputs) => Ok(deployed.normalise(inputs)),
        Query::Texts(texts) => ports::tokens(spec, tokenizer, &texts),
    }
}

fn ms_since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cleave_shared::{
        checkpoint::WeightsId,
        codec,
        compute::Machine,
        model::{SeededWeights, Segment},
        tensor::HostTensor,
    };
    use tower::{BoxError, service_fn, timeout::error::Elapsed, util::BoxCloneSyncService};

    use super::*;
    use crate::deploy::Target;

    pub(super) fn deployed(config: &Config, split: usize) -> Current {
        let weights = WeightsId::Seed(7);
        let head = Segment::build(&config.model, 0..split, &mut SeededWeights(7), false).unwrap();
        let deployment = Deployment {
            stages: config.model.stage_count(),
            head: Arc::new(head),
            exits: Arc::default(),
            codec: codec::by_name("f32").unwrap(),
            agreement: config.agreement(split, &weights.to_string()),
            bound: true.into(),
            normalisation: Vec::new(),
            target: Target { split, codec: "f32".into(), weights },
        };
        watch::channel(Some(Arc::new(deployment))).1
    }

    /// Asks a cloud that is never in time, with the whole model to fall back on. Until when the cloud was awaited,
    /// and where the model was split for the answer.
    async fn asked(client: Option<Deadline>) -> (Deadline, Result<usize, InferError>) {
        let config = Config::default();
        let awaited = Arc::new(Mutex::new(None));
        let note = awaited.clone();
        let cloud = BoxCloneSyncService::new(service_fn(move |call: InferCall| {
            *note.lock().unwrap() = call.deadline;
            future::ready(Err::<InferAnswer, BoxError>(Elapsed::new().into()))
        }));
        let (pool, split) = (ComputePool::new(1, 4, Machine::new(1)), deployed(&config, 2));
        let whole = deployed(&config, config.model.stage_count());
        let predictor = SplitPredictor::new(config, split, pool, cloud, None)
            .with_spare(whole, watch::channel(None).1);
        let input = HostTensor::from_f32(vec![1, 1, 8, 8], &[0.5; 64]);
        let query = Query::Tensors(vec![("input".into(), input)]);
        let request = InferRequest { deadline: client, ..query.into() };
        let answer = predictor.predict(request).await.map(|prediction| prediction.split_point);
        let until = awaited.lock().unwrap().expect("the cloud was asked");
        (until, answer)
    }

    #[tokio::test]
    async fn the_cloud_is_awaited_until_the_earlier_deadline() {
        let whole = Config::default().model.stage_count();
        let own = Duration::from_millis(Config::default().edge.deadline_ms);
        for client in [None, Some(Deadline::after(60 * own))] {
            let (until, answer) = asked(client).await;
            assert!(until.left() <= own);
            assert_eq!(answer, Ok(whole));
        }
        let client = Deadline::after(own * 9 / 10);
        assert_eq!(asked(Some(client)).await, (client, Ok(whole)));
    }

    #[tokio::test]
    async fn the_whole_model_does_not_begin_for_a_client_that_has_stopped_waiting() {
        let client = Deadline::after(Duration::ZERO);
        let (until, answer) = asked(Some(client)).await;
        assert_eq!(until, client);
        assert!(matches!(answer, Err(InferError::Deadline(_))), "{answer:?}");
    }
}
