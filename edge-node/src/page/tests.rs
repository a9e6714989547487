//! The page's routes without a socket, around a predictor that computes; no cloud is there.

use std::{fs, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request},
};
use cleave_shared::{
    checkpoint::WeightsId,
    codec,
    compute::{ComputePool, Machine},
    config::{Config, EdgeConfig, RunsConfig},
    link::Link,
    model::{SeededWeights, Segment},
    security::Secret,
    tensor::HostTensor,
};
use serde_json::{Value, json};
use tower::{BoxError, ServiceExt, util::BoxCloneSyncService};

use super::*;
use crate::{
    deploy::{Deployment, Target},
    reconfigure::{QUEUE, Setting},
    serve::{Predictor, Query},
    stack,
    train::{Line, RunRecord, Score, Stepped, Validated},
};

const TOKEN: &str = "0123456789abcdef";
const LIMIT: usize = 1 << 20;

struct Edge {
    folder: tempfile::TempDir,
    router: Router,
    head: Arc<Segment>,
    predictor: Observed<SplitPredictor>,
    asked: mpsc::Receiver<Wish>,
    config: watch::Sender<Config>,
    _deployed: watch::Sender<Option<Arc<Deployment>>>,
}

fn deployment(config: &Config, split: usize, codec_name: &str) -> Deployment {
    let weights = WeightsId::Seed(7);
    let head = Segment::build(&config.model, 0..split, &mut SeededWeights(7), false).unwrap();
    Deployment {
        stages: config.model.stage_count(),
        head: Arc::new(head),
        exits: Arc::default(),
        codec: codec::by_name(codec_name).unwrap(),
        agreement: config.agreement(split, &weights.to_string()),
        bound: true.into(),
        normalisation: Vec::new(),
        target: Target { split, codec: codec_name.into(), weights },
    }
}

/// `token`: whether there is one.
fn edge(split: usize, codec_name: &str, token: bool) -> Edge {
    let folder = tempfile::tempdir().unwrap();
    let runs = RunsConfig { dir: folder.path().join("runs"), ..RunsConfig::default() };
    // Nobody listens there.
    let edge = EdgeConfig { cloud: "http://127.0.0.1:1".into(), ..EdgeConfig::default() };
    let config = Config { runs, edge, ..Config::default() };
    let made = deployment(&config, split, codec_name);
    let head = made.head.clone();
    let (deployed, current) = watch::channel(Some(Arc::new(made)));
    let (sender, now) = watch::channel(config.clone());
    let pool = ComputePool::new(1, 4, Machine::new(1));
    let cloud = tower::service_fn(|_| async { Err(BoxError::from("there is no cloud")) });
    let cloud = BoxCloneSyncService::new(cloud);
    let predictor = SplitPredictor::new(config.clone(), current.clone(), pool, cloud, None);
    let predictor = Arc::new(predictor);
    let ledger = Arc::new(Ledger::new(now.clone()));
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let link = Link::new(config.link_profile(), 1);
    let (wishes, asked) = mpsc::channel(QUEUE);
    let page = Page {
        predictor: predictor.clone(),
        ledger: ledger.clone(),
        current,
        config: now,
        cloud: stack::client(&config, &link).unwrap(),
        link,
        clouds: Clouds::new(&config).unwrap(),
        profiles: None,
        access: Arc::new(Access::new(token.then(|| Secret::read(file).unwrap()))),
        wishes,
    };
    let predictor = Observed::new(predictor, ledger);
    let (router, config) = (page_router(page, LIMIT), sender);
    Edge { folder, router, head, predictor, asked, config, _deployed: deployed }
}

impl Edge {
    async fn send(&self, request: Request<Body>) -> (u16, HeaderMap, Bytes) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), parts.headers, to_bytes(body, usize::MAX).await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn activation(&self, input: Value) -> (u16, Value) {
        let body = json!({ "inputs": [input] }).to_string();
        let request = Request::post("/page/api/activation").body(body.into()).unwrap();
        let (status, _, body) = self.send(request).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// With these headers.
    async fn change(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, String) {
        let mut request = Request::put(format!("/page/api/{path}"));
        for (name, value) in [("content-type", "application/json")].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let (status, _, body) = self.send(request.body(body.to_string().into()).unwrap()).await;
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

fn sample() -> Vec<f32> {
    (0..64).map(|i| i as f32 / 64.0).collect()
}

fn input(batch: usize) -> Value {
    let values = sample().repeat(batch);
    json!({ "name": "input", "datatype": "FP32", "shape": [batch, 1, 8, 8], "data": values })
}

#[tokio::test]
async fn files_have_a_type_a_tag_and_a_policy() {
    let edge = edge(2, "f32", false);
    for (path, kind) in
        [("", "text/html"), ("style.css", "text/css"), ("main.js", "text/javascript")]
    {
        let path = format!("/page/{path}");
        let (status, headers, body) =
            edge.send(Request::get(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, 200, "{path}");
        assert!(headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(
            headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'")
        );
        assert!(!body.is_empty());
        let again = Request::get(&path).header("if-none-match", &headers["etag"]);
        let (status, headers, body) = edge.send(again.body(Body::empty()).unwrap()).await;
        assert_eq!((status, body.len()), (304, 0), "{path}");
        assert!(headers.contains_key("content-security-policy"));
    }
    assert_eq!(edge.get("/page/none.js").await.0, 404);
    let (status, headers, _) = edge.send(Request::get("/").body(Body::empty()).unwrap()).await;
    assert_eq!((status, &headers["location"]), (307, &"/page/".parse().unwrap()));
    let (status, _, body) = edge.send(Request::post("/page/").body(Body::empty()).unwrap()).await;
    assert_eq!(status, 405);
    assert!(String::from_utf8_lossy(&body).contains("does not take POST"));
}

/// Nothing on the page is loaded from elsewhere, or is missing.
#[tokio::test]
async fn what_files_name_is_there() {
    let edge = edge(2, "f32", false);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
    let mut named = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        named.push(path.file_name().unwrap().to_str().unwrap().to_string());
        let text = fs::read_to_string(&path).unwrap();
        for opening in ["from \"./", "src=\"", "href=\""] {
            let rests = text.split(opening).skip(1);
            named.extend(rests.map(|rest| rest.split('"').next().unwrap().to_string()));
        }
        let addresses = text.replace("http://www.w3.org/2000/svg", "");
        let elsewhere = ["http://", "https://"].iter().any(|scheme| addresses.contains(scheme));
        assert!(!elsewhere, "{} names an address", path.display());
    }
    assert!(named.len() > 20);
    for name in named.iter().filter(|name| !name.starts_with('#')) {
        assert_eq!(edge.get(&format!("/page/{name}")).await.0, 200, "{name}");
    }
}

#[tokio::test]
async fn the_activation_is_what_the_head_gives() {
    let edge = edge(2, "f32", false);
    let (status, found) = edge.activation(input(1)).await;
    assert_eq!(status, 200, "{found}");
    let x = HostTensor::from_f32(vec![1, 1, 8, 8], &sample());
    let own = edge.head.infer(&vec![("x".into(), x)]).unwrap();
    let (name, tensor) = &own[0];
    let values = tensor.to_f32().unwrap();
    let [_, channels, height, width] = tensor.shape()[..] else { panic!("{:?}", tensor.shape()) };
    assert_eq!((&found["split_point"], &found["codec"]), (&json!(2), &json!("f32")));
    assert_eq!(found["bytes"], json!(4 * values.len()));
    let picture = &found["tensors"][0];
    assert_eq!(
        (&picture["name"], &picture["shape"]),
        (&json!(name), &json!([channels, height, width]))
    );
    let maps: Vec<Vec<f32>> = serde_json::from_value(picture["maps"].clone()).unwrap();
    assert_eq!(maps.concat(), values);
}

#[tokio::test]
async fn the_activation_is_as_the_codec_leaves_it() {
    let (exact, coarse) = (edge(2, "f32", false), edge(2, "int4", false));
    let ((_, exact), (_, coarse)) =
        (exact.activation(input(1)).await, coarse.activation(input(1)).await);
    assert!(coarse["bytes"].as_u64().unwrap() * 7 < exact["bytes"].as_u64().unwrap());
    assert_ne!(exact["tensors"][0]["maps"], coarse["tensors"][0]["maps"]);
}

#[tokio::test]
async fn nothing_crosses_where_all_is_on_the_edge_and_one_sample_is_enough() {
    let whole = edge(Config::default().model.stage_count(), "f32", false);
    let (status, found) = whole.activation(input(1)).await;
    assert_eq!((status, &found["tensors"], &found["bytes"]), (200, &json!([]), &json!(0)));
    let (status, found) = whole.activation(input(2)).await;
    assert_eq!(status, 400);
    assert!(found["error"].as_str().unwrap().contains("one sample"), "{found}");
    let (status, found) = whole.activation(json!({ "name": "boat" })).await;
    assert_eq!((status, found["error"].is_string()), (400, true));
}

#[tokio::test]
async fn without_a_token_nothing_changes() {
    let mut edge = edge(2, "f32", false);
    let bearer = format!("Bearer {TOKEN}");
    for (path, body) in
        [("split-point", json!({"split_point": 1})), ("link-profile", json!({"profile": "lte"}))]
    {
        let (status, text) = edge.change(path, &body, &[("authorization", &bearer)]).await;
        assert_eq!(status, 403);
        assert!(text.contains("set edge.admin_token"), "{text}");
    }
    assert!(edge.asked.try_recv().is_err());
    let (_, found) = edge.get("/page/api/edge").await;
    assert_eq!(found["may_change"], json!(false));
}

#[tokio::test]
async fn only_the_token_from_the_page_itself_changes_something() {
    let mut edge = edge(2, "f32", true);
    let body = json!({"split_point": 1});
    let bearer = format!("Bearer {TOKEN}");
    let own = ("authorization", bearer.as_str());
    for (headers, expected) in [
        (vec![], 401),
        (vec![("authorization", "Bearer 0123456789abcdeX")], 401),
        (vec![("authorization", TOKEN)], 401),
        (vec![own, ("origin", "http://evil.example"), ("host", "127.0.0.1:8000")], 403),
        (vec![own, ("sec-fetch-site", "cross-site")], 403),
    ] {
        let (status, text) = edge.change("split-point", &body, &headers).await;
        assert_eq!(status, expected, "{headers:?} {text}");
    }
    for body in [json!({}), json!({"split_point": -1}), json!({"split_point": 1, "more": 2})] {
        let (status, _) = edge.change("split-point", &body, &[own]).await;
        assert_eq!(status, 422, "{body}");
    }
    assert!(edge.asked.try_recv().is_err(), "nothing of that was a wish");
}

#[tokio::test]
async fn a_change_answers_when_it_is_in_force_and_a_refusal_says_why() {
    let mut edge = edge(2, "f32", true);
    let (mut asked, config) = (edge.asked, edge.config);
    edge.asked = mpsc::channel(1).1;
    edge.config = watch::channel(Config::default()).0;
    // The reconfigurer's part.
    let granting = tokio::spawn(async move {
        let mut settings = Vec::new();
        while let Some(Wish { setting, done }) = asked.recv().await {
            let outcome = match &setting {
                Setting::LinkProfile(name) if name == "7g" => Err("link.profile: no such".into()),
                Setting::LinkProfile(name) => {
                    config.send_modify(|config| config.link.profile.clone_from(name));
                    Ok(())
                }
                Setting::SplitPoint(split) => {
                    config.send_modify(|config| config.split_point = *split);
                    Ok(())
                }
                Setting::Newest => Err("the page does not ask for that".into()),
            };
            settings.push(setting);
            done.send(outcome).unwrap();
        }
        settings.len()
    });
    let bearer = format!("Bearer {TOKEN}");
    let own = [("authorization", bearer.as_str())];
    let answer = edge.change("split-point", &json!({"split_point": 3}), &own).await;
    assert_eq!(answer, (200, json!({"profile": "5g-midband", "split_point": 3}).to_string()));
    let answer = edge.change("split-point", &json!({"split_point": "auto"}), &own).await;
    assert_eq!(answer, (200, json!({"profile": "5g-midband", "split_point": "auto"}).to_string()));
    let answer = edge.change("link-profile", &json!({"profile": "lte"}), &own).await;
    assert_eq!(answer, (200, json!({"profile": "lte", "split_point": "auto"}).to_string()));
    let answer = edge.change("link-profile", &json!({"profile": "7g"}), &own).await;
    assert_eq!(answer, (422, json!({"error": "link.profile: no such"}).to_string()));
    drop(edge);
    assert_eq!(granting.await.unwrap(), 4);
}

#[tokio::test]
async fn the_state_says_what_was_measured_and_that_the_cloud_is_gone() {
    let whole = edge(Config::default().model.stage_count(), "f32", false);
    let query = || {
        let x = HostTensor::from_f32(vec![1, 1, 8, 8], &sample());
        Query::Tensors(vec![("input".into(), x)])
    };
    for _ in 0..3 {
        whole.predictor.predict(query().into()).await.unwrap();
    }
    let (status, state) = whole.get("/page/api/state").await;
    assert_eq!(status, 200);
    assert_eq!(state["requests"]["answered"], json!(3));
    assert_eq!(state["requests"]["latency_ms"]["count"], json!(3));
    assert_eq!(state["splits"][0]["split_point"], json!(whole.head.stage_names().len()));
    assert_eq!(state["deployed"]["weights"], json!("seed-7"));
    assert_eq!(state["link"]["profile"], json!("5g-midband"));
    let gone = async || loop {
        let (_, state) = whole.get("/page/api/state").await;
        let cloud = state["clouds"][0].clone();
        if cloud["up"] != Value::Null {
            return cloud;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let cloud = tokio::time::timeout(Duration::from_secs(10), gone()).await.unwrap();
    assert_eq!((&cloud["up"], &cloud["in_use"]), (&json!(false), &json!(false)));
    assert!(cloud["problem"].as_str().unwrap().contains("127.0.0.1:1"), "{cloud}");

    let split = edge(2, "f32", false);
    assert!(split.predictor.predict(query().into()).await.is_err());
    let (_, state) = split.get("/page/api/state").await;
    assert_eq!(state["requests"]["failed"], json!(1));
}

#[tokio::test]
async fn the_edge_says_what_it_serves() {
    let (status, found) = edge(2, "f32", true).get("/page/api/edge").await;
    assert_eq!(status, 200);
    assert_eq!(found["model"]["name"], json!("digits"));
    let stages = found["model"]["stages"].as_array().unwrap().len();
    assert_eq!(found["model"]["cuts"].as_array().unwrap().len(), stages + 1);
    assert_eq!(found["model"]["inputs"][0]["shape"], json!([1, 8, 8]));
    let links: Vec<&Value> =
        found["links"].as_array().unwrap().iter().map(|l| &l["name"]).collect();
    assert!(links.contains(&&json!("lte")) && links.contains(&&json!("none")), "{links:?}");
    assert_eq!(found["may_change"], json!(true));
}

#[tokio::test]
async fn without_measurements_there_is_no_prediction() {
    let (status, found) = edge(2, "f32", false).get("/page/api/plan").await;
    assert_eq!((status, &found["rows"]), (200, &json!([])));
    assert!(found["problem"].as_str().unwrap().contains("edge-node profile"), "{found}");
}

#[tokio::test]
async fn runs_are_listed_and_their_curves_shown() {
    let edge = edge(2, "f32", false);
    assert_eq!(edge.get("/page/api/runs").await, (200, json!({ "runs": [], "all": 0 })));
    let runs = edge.folder.path().join("runs").join("edge");
    let record = serde_json::to_string(&RunRecord::new(&Config::default(), None)).unwrap();
    for run in ["one", "two"] {
        let folder = runs.join(run);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("run.json"), &record).unwrap();
        let lines = (1..=500).map(step).chain([validation()]);
        let lines: Vec<String> = lines.map(|line| serde_json::to_string(&line).unwrap()).collect();
        fs::write(folder.join("metrics.jsonl"), lines.join("\n")).unwrap();
    }
    // Without a record, and under a name that is none.
    fs::create_dir_all(runs.join("three")).unwrap();
    let (_, found) = edge.get("/page/api/runs").await;
    assert_eq!((&found["all"], found["runs"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!(found["runs"][0]["family"], json!("lenet"));
    let (status, found) = edge.get("/page/api/runs/one").await;
    assert_eq!((status, &found["steps"]), (200, &json!(500)));
    let rows = found["rows"].as_array().unwrap();
    assert!(rows.len() <= 400);
    assert_eq!((&rows.last().unwrap()["step"], &rows[0]["loss"]), (&json!(500), &json!(1.5)));
    assert_eq!(found["validations"][0]["accuracy"], json!(0.75));

    fs::write(edge.folder.path().join("run.json"), &record).unwrap();
    for (run, expected) in
        [("none", 404), ("..%2f..", 400), ("%2e%2e", 400), ("a%2fb", 400), ("x%00", 400)]
    {
        let (status, found) = edge.get(&format!("/page/api/runs/{run}")).await;
        assert_eq!((status, found["error"].is_string()), (expected, true), "{run}: {found}");
    }
}

fn step(step: u64) -> Line {
    Line::Step(Stepped {
        step,
        epoch: 1,
        loss: if step == 1 { 2.0 } else { 1.0 },
        score: Score::default(),
        head_ms: 1.0,
        link_ms: 2.0,
        tail_ms: 3.0,
        step_ms: 6.0,
        overlap: None,
        micro_batches: 1,
        learning_rate: 0.1,
        gradient_norm: None,
        uplink_bytes: 10 * step,
        downlink_bytes: 5 * step,
    })
}

fn validation() -> Line {
    let score = Score { accuracy: Some(0.75), ..Score::default() };
    Line::Validation(Validated { step: 500, epoch: 1, loss: 0.5, score })
}
