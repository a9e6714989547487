use cleave_shared::{
    codec::F32,
    compute::{ComputePool, Machine},
    config::{Config, EdgeConfig},
    model::{SeededWeights, Segment},
    tensor::HostTensor,
    wire::{self, v1},
};
use tokio::{
    sync::watch,
    task::{JoinHandle, yield_now},
};
use tonic::Status;
use tower::{BoxError, service_fn, util::BoxCloneSyncService};

use super::*;
use crate::{
    cloud::{InferAnswer, InferCall},
    predict::tests::deployed,
    stack::CloudCall,
};

const SPLIT: usize = 2;
/// Longest that anything here may take; only a failure takes that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Values that the cloud refuses.
const TOO_LARGE: f32 = 1e6;

/// What the cloud does with a call.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    /// Not until that changes.
    Waits,
    Gone,
}

/// Samples of each call to the cloud.
type Calls = Arc<Mutex<Vec<usize>>>;

struct Edge {
    gathered: Arc<Gathered>,
    calls: Calls,
    mood: watch::Sender<Mood>,
}

/// One slot, and deadlines that no test comes near.
fn settings() -> EdgeConfig {
    EdgeConfig { threads: 1, micro_batch: 8, deadline_ms: 3_600_000, ..EdgeConfig::default() }
}

fn edge(settings: EdgeConfig) -> Edge {
    edge_with(settings, false)
}

/// `spare`: whether the whole model is at hand.
fn edge_with(settings: EdgeConfig, spare: bool) -> Edge {
    let config = Config { edge: settings, ..Config::default() };
    let stages = config.model.stage_count();
    let tail = Segment::build(&config.model, SPLIT..stages, &mut SeededWeights(7), false).unwrap();
    let (calls, (mood, now)) = (Calls::default(), watch::channel(Mood::Answers));
    let cloud = cloud(Arc::new(tail), calls.clone(), now);
    let (pool, split) = (ComputePool::new(1, 16, Machine::new(1)), deployed(&config, SPLIT));
    let whole = deployed(&config, stages);
    let predictor = SplitPredictor::new(config, split, pool, cloud, None);
    let predictor = match spare {
        true => predictor.with_spare(whole, watch::channel(None).1),
        false => predictor,
    };
    Edge { gathered: Arc::new(Gathered::new(Arc::new(predictor))), calls, mood }
}

fn cloud(tail: Arc<Segment>, calls: Calls, mood: watch::Receiver<Mood>) -> CloudCall {
    BoxCloneSyncService::new(service_fn(move |call: InferCall| {
        let (tail, calls, mut mood) = (tail.clone(), calls.clone(), mood.clone());
        async move {
            let input = wire::decode(call.activation, &F32)?;
            calls.lock().unwrap().push(input[0].1.shape()[0]);
            let now = *mood.wait_for(|mood| *mood != Mood::Waits).await?;
            if now == Mood::Gone {
                return Err(Status::unavailable("gone").into());
            }
            if input[0].1.to_f32()?.iter().any(|value| value.abs() > TOO_LARGE) {
                return Err(Status::invalid_argument("too large").into());
            }
            let output = wire::encode(tail.infer(&input)?, &F32);
            let reply = v1::InferReply { output, ..Default::default() };
            Ok::<_, BoxError>(InferAnswer { reply, uplink_ms: 1.0, downlink_ms: 1.0 })
        }
    }))
}

/// So many samples around this value, none like another.
fn request(samples: usize, value: f32) -> InferRequest {
    let values: Vec<f32> =
        (0..samples * 64).map(|i| value + (i * 37 % 101) as f32 / 50.0).collect();
    let input = HostTensor::from_f32(vec![samples, 1, 8, 8], &values);
    Query::Tensors(vec![("input".into(), input)]).into()
}

impl Edge {
    async fn predict(&self, request: InferRequest) -> Answer {
        tokio::time::timeout(PATIENCE, self.gathered.predict(request)).await.expect("in time")
    }

    fn ask(&self, request: InferRequest) -> JoinHandle<Answer> {
        let gathered = self.gathered.clone();
        tokio::spawn(async move { gathered.predict(request).await })
    }

    /// The same, once it waits in line.
    async fn queue(&self, request: InferRequest) -> JoinHandle<Answer> {
        let before = self.waiting();
        let asked = self.ask(request);
        eventually(|| self.waiting() > before).await;
        asked
    }

    /// Keeps the only slot.
    async fn busy(&self) -> OwnedSemaphorePermit {
        self.gathered.0.slot().await.unwrap()
    }

    fn waiting(&self) -> usize {
        locked(&self.gathered.0.line).waiting()
    }

    fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }
}

async fn eventually(seen: impl Fn() -> bool) {
    let waited = async {
        while !seen() {
            yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it is seen");
}

async fn answer(asked: JoinHandle<Answer>) -> Answer {
    tokio::time::timeout(PATIENCE, asked).await.expect("in time").unwrap()
}

fn values(prediction: &Prediction) -> Vec<f32> {
    prediction.outputs[0].1.to_f32().unwrap()
}

/// A linear layer adds in another order for several samples.
fn assert_near(found: &Prediction, expected: &Prediction) {
    assert_eq!(found.outputs[0].0, expected.outputs[0].0);
    assert_eq!(found.outputs[0].1.shape(), expected.outputs[0].1.shape());
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-5 * largest;
    assert!(found.iter().zip(&expected).all(near), "{found:?}, not {expected:?}");
}

#[tokio::test]
async fn what_waits_together_is_one_call_and_each_has_its_own_answer() {
    let edge = edge(settings());
    let requests = [request(1, 0.1), request(2, 0.6), request(1, -0.9)];
    let mut alone = Vec::new();
    for request in &requests {
        alone.push(edge.predict(request.clone()).await.unwrap());
    }
    assert_eq!(edge.calls(), [1, 2, 1]);
    assert_ne!(values(&alone[0]), values(&alone[2]));
    let busy = edge.busy().await;
    let mut asked = Vec::new();
    for request in requests {
        asked.push(edge.queue(request).await);
    }
    drop(busy);
    for (asked, alone) in asked.into_iter().zip(&alone) {
        let together = answer(asked).await.unwrap();
        assert_near(&together, alone);
        assert_eq!((together.split_point, together.exits.is_none()), (SPLIT, true));
    }
    assert_eq!(edge.calls(), [1, 2, 1, 4]);
}

#[tokio::test]
async fn one_mistake_is_nobody_elses_error() {
    let edge = edge(settings());
    let alone = edge.predict(request(1, 0.1)).await.unwrap();
    let busy = edge.busy().await;
    let good = edge.queue(request(1, 0.1)).await;
    let bad = edge.queue(request(1, 1e9)).await;
    let another = edge.queue(request(1, 0.1)).await;
    drop(busy);
    assert_near(&answer(good).await.unwrap(), &alone);
    assert_near(&answer(another).await.unwrap(), &alone);
    let error = answer(bad).await.unwrap_err();
    assert!(
        matches!(&error, InferError::Internal(text) if text.contains("too large")),
        "{error:?}"
    );
    assert_eq!(edge.calls(), [1, 3, 1, 1, 1]);
}

#[tokio::test]
async fn what_is_nobodys_fault_is_said_to_all() {
    let edge = edge(settings());
    let busy = edge.busy().await;
    let asked = [edge.queue(request(1, 0.1)).await, edge.queue(request(1, 0.2)).await];
    edge.mood.send_replace(Mood::Gone);
    drop(busy);
    for asked in asked {
        let outcome = answer(asked).await;
        assert!(matches!(outcome, Err(InferError::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(edge.calls(), [2]);
}

#[tokio::test]
async fn who_leaves_takes_no_others_along() {
    let edge = edge(settings());
    let held_by = Arc::strong_count(&edge.calls);
    // In line.
    let busy = edge.busy().await;
    let gone = edge.queue(request(1, 0.1)).await;
    let stays = edge.queue(request(2, 0.2)).await;
    gone.abort();
    eventually(|| edge.waiting() == 1).await;
    drop(busy);
    answer(stays).await.unwrap();
    assert_eq!(edge.calls(), [2]);
    // While the call is under way.
    edge.mood.send_replace(Mood::Waits);
    let under_way = async || {
        let busy = edge.busy().await;
        let asked = [edge.queue(request(1, 0.1)).await, edge.queue(request(1, 0.2)).await];
        let calls = edge.calls().len();
        drop(busy);
        eventually(|| edge.calls().len() > calls).await;
        asked
    };
    let [gone, stays] = under_way().await;
    gone.abort();
    assert!(gone.await.is_err());
    let all = under_way().await;
    edge.mood.send_replace(Mood::Answers);
    answer(stays).await.unwrap();
    for asked in all {
        answer(asked).await.unwrap();
    }
    // A call that nobody waits for ends.
    edge.mood.send_replace(Mood::Waits);
    under_way().await.into_iter().for_each(|asked| asked.abort());
    eventually(|| Arc::strong_count(&edge.calls) == held_by).await;
    assert_eq!(edge.calls(), [2; 4]);
}

#[tokio::test]
async fn a_full_line_refuses() {
    let edge = edge(EdgeConfig { queue: 2, ..settings() });
    let busy = edge.busy().await;
    let asked = [edge.queue(request(1, 0.1)).await, edge.queue(request(1, 0.2)).await];
    let refused = edge.predict(request(1, 0.3)).await;
    let full = |text: &String| text.contains("full (2 jobs waiting)");
    assert!(matches!(&refused, Err(InferError::Busy(text)) if full(text)), "{refused:?}");
    drop(busy);
    for asked in asked {
        answer(asked).await.unwrap();
    }
}

#[tokio::test]
async fn what_goes_by_itself_needs_no_slot() {
    let edge = |micro_batch| edge(EdgeConfig { micro_batch, ..settings() });
    let off = edge(1);
    let _busy = off.busy().await;
    for value in [0.1, 0.2, 0.3] {
        off.predict(request(1, value)).await.unwrap();
    }
    assert_eq!(off.calls(), [1; 3]);
    let on = edge(2);
    let _busy = on.busy().await;
    on.predict(request(2, 0.1)).await.unwrap();
    assert_eq!(on.calls(), [2], "it fills a micro-batch alone");
}

#[tokio::test]
async fn who_waits_no_more_is_refused() {
    let edge = edge(settings());
    let busy = edge.busy().await;
    let stays = edge.queue(request(1, 0.1)).await;
    let late = InferRequest { deadline: Some(Deadline::after(Duration::ZERO)), ..request(1, 0.2) };
    let outcome = edge.predict(late).await;
    assert!(matches!(outcome, Err(InferError::Deadline(_))), "{outcome:?}");
    assert_eq!(edge.waiting(), 1);
    drop(busy);
    answer(stays).await.unwrap();
    assert_eq!(edge.calls(), [1]);
}

#[tokio::test]
async fn the_next_head_does_not_wait_for_the_answer_of_this() {
    for spare in [false, true] {
        let edge = edge_with(settings(), spare);
        edge.mood.send_replace(Mood::Waits);
        let mut asked = Vec::new();
        for calls in 1..4 {
            asked.push(edge.ask(request(1, 0.1)));
            eventually(|| edge.calls() == vec![1; calls]).await;
        }
        edge.mood.send_replace(Mood::Answers);
        for asked in asked {
            assert_eq!(answer(asked).await.unwrap().split_point, SPLIT);
        }
    }
}

#[tokio::test]
async fn the_whole_model_answers_all_of_a_micro_batch() {
    let edge = edge_with(settings(), true);
    let alone = edge.predict(request(1, 0.2)).await.unwrap();
    edge.mood.send_replace(Mood::Gone);
    let busy = edge.busy().await;
    let asked = [edge.queue(request(2, 0.1)).await, edge.queue(request(1, 0.2)).await];
    drop(busy);
    let [first, second] = asked;
    let first = answer(first).await.unwrap();
    assert_eq!(first.split_point, Config::default().model.stage_count());
    assert_near(&answer(second).await.unwrap(), &alone);
    assert_eq!(edge.calls(), [1, 3]);
}
