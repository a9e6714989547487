//! Requests to the edge, good and bad, with the cloud there, gone and dying.

use std::time::{Duration, Instant};

use cleave_shared::{
    model::{SeededWeights, Segment},
    tensor::{HostTensor, batch},
};
use futures_util::future::join_all;
use tonic::Code;

use crate::{
    link_proxy::http,
    nodes::{CONFIG, Nodes, digits, eventually, free_ports, request, split_point},
};

#[tokio::test]
async fn every_split_answers_as_the_whole_model_does() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let config = nodes.config();
    let stages = config.model.stage_count();
    let mut weights = SeededWeights(config.seed);
    let whole = Segment::build(&config.model, 0..stages, &mut weights, false).unwrap();
    let input = digits(&config, 3);
    let expected = whole.infer(&vec![("x".into(), input.clone())]).unwrap().remove(0).1;
    for split in 0..=stages {
        nodes.write_config(&CONFIG.replace("split_point = 2", &format!("split_point = {split}")));
        nodes.start_edge().await;
        let reply = nodes.infer(input.clone()).await.unwrap();
        assert_eq!(split_point(&reply), split as u64);
        assert_eq!(reply.raw_output_contents[0], expected.data(), "split {split}");
        nodes.edge = None;
    }
}

#[tokio::test]
async fn requests_that_wait_together_are_answered_as_each_alone() {
    let [metrics] = free_ports();
    let mut nodes = Nodes::new(CONFIG);
    nodes.cloud_sets = ["threads=1", "max_batch=6", "batch_delay_ms=300"].map(cloud_setting).into();
    nodes.cloud_sets.push(cloud_setting(&format!("metrics_listen=127.0.0.1:{metrics}")));
    nodes.start_cloud().await;
    nodes.start_edge().await;
    let all = digits(&nodes.config(), 8);
    // Of one sample and of two, which go together, and one that is too many for that.
    let inputs = batch::split(&all, &[1, 2, 1, 4]).unwrap();
    let mut alone = Vec::new();
    for input in &inputs {
        alone.push(nodes.infer(input.clone()).await.unwrap().raw_output_contents);
    }
    let text = http(metrics, "GET", "/metrics", "").await;
    assert!(text.contains("cleave_batched_requests_total 0\n"), "{text}");
    let asked = inputs.iter().map(|input| nodes.infer(input.clone()));
    for (reply, alone) in join_all(asked).await.into_iter().zip(alone) {
        assert_eq!(reply.unwrap().raw_output_contents, alone);
    }
    let text = http(metrics, "GET", "/metrics", "").await;
    let batched = text.lines().find_map(|l| l.strip_prefix("cleave_batched_requests_total "));
    assert!(batched.is_some_and(|count| count.parse::<u32>().unwrap() >= 2), "{text}");
}

fn cloud_setting(setting: &str) -> String {
    format!("cloud.{setting}")
}

#[tokio::test]
async fn each_mistake_has_its_error_and_the_node_stays_up() {
    let nodes = Nodes::start(CONFIG).await;
    let input = digits(&nodes.config(), 1);
    let good = request(input.clone());
    let mut client = nodes.client().await;
    let mut refused = async |change: &dyn Fn(&mut _)| {
        let mut bad = good.clone();
        change(&mut bad);
        let status = client.model_infer(bad).await.expect_err("refused");
        // The next request is answered.
        client.model_infer(good.clone()).await.expect("the node stays up");
        (status.code(), status.message().to_string())
    };
    type Request = edge_node::proto::inference::ModelInferRequest;
    let (code, text) = refused(&|r: &mut Request| r.inputs[0].shape = vec![1, 1, 9, 8]).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("dimension 2 is 9, not 8"), "{text}");
    let (code, text) = refused(&|r: &mut Request| r.inputs[0].datatype = "INT8".into()).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("send FP32") || text.contains("send \"FP32\""), "{text}");
    let (code, text) = refused(&|r: &mut Request| r.model_name = "cats".into()).await;
    assert_eq!(code, Code::NotFound);
    assert!(text.contains("\"cats\" is not served here"), "{text}");
    let (code, text) = refused(&|r: &mut Request| {
        r.raw_input_contents[0].truncate(100);
    })
    .await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("truncated raw contents: 100 bytes"), "{text}");
    let (code, text) = refused(&|r: &mut Request| {
        let nan = HostTensor::from_f32(vec![1, 1, 8, 8], &[f32::NAN; 64]);
        r.raw_input_contents[0] = nan.into_data();
    })
    .await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("NaN"), "{text}");
    let (code, _) = refused(&|r: &mut Request| {
        r.raw_input_contents[0] = vec![0; 1 << 20].into();
    })
    .await;
    assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{code:?}");
}

#[tokio::test]
async fn an_edge_without_a_cloud_says_so_and_recovers() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.launch_edge();
    let input = digits(&nodes.config(), 1);
    let connect = async || {
        let address = format!("http://127.0.0.1:{}", nodes.grpc_port);
        let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await;
        channel.ok()
    };
    crate::nodes::eventually("the edge's port", connect).await.expect("the edge listens");
    let status = nodes.infer(input.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("has not agreed"), "{status}");

    nodes.start_cloud().await;
    nodes.healthy(nodes.grpc_port).await;
    nodes.infer(input.clone()).await.expect("the edge found the cloud");

    nodes.cloud = None;
    let begin = Instant::now();
    let status = nodes.infer(input.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("does not answer"), "{status}");
    // The deadline is 5 s; a refused connection takes none of it. A bound against a hang only.
    assert!(begin.elapsed() < Duration::from_secs(10));

    nodes.start_cloud().await;
    let found = async || nodes.infer(input.clone()).await.ok();
    eventually("an answer of the new cloud", found).await.expect("the edge found it");
}

#[tokio::test]
async fn a_cloud_that_dies_under_a_request_is_an_error_in_bounded_time() {
    // 25 ms each way: requests are certainly under way when the cloud is killed.
    let config = CONFIG.replace("profile = \"none\"", "profile = \"lte\"");
    let mut nodes = Nodes::start(&config).await;
    let input = digits(&nodes.config(), 64);
    let client = nodes.client().await;
    let requests: Vec<_> = (0..16)
        .map(|_| {
            let (mut client, request) = (client.clone(), request(input.clone()));
            tokio::spawn(async move { client.model_infer(request).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    nodes.cloud = None;
    for request in requests {
        let outcome = tokio::time::timeout(Duration::from_secs(15), request).await;
        if let Err(status) = outcome.expect("no request hangs").unwrap() {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
        }
    }
    nodes.start_cloud().await;
    let found = async || nodes.infer(input.clone()).await.ok();
    eventually("an answer", found).await.expect("the edge stays up");
}

#[tokio::test]
async fn both_nodes_end_cleanly_when_asked() {
    let mut nodes = Nodes::start(CONFIG).await;
    for mut node in [nodes.edge.take().unwrap(), nodes.cloud.take().unwrap()] {
        assert!(node.terminate().success(), "{}", nodes.logs());
    }
}
