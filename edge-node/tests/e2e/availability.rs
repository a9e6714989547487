//! Clouds that die and hang while clients ask: another answers, or the edge alone, or a clear error.

use std::time::{Duration, Instant};

use cleave_shared::tensor::HostTensor;
use edge_node::proto::inference::ModelInferResponse;
use tonic::Code;

use crate::nodes::{CONFIG, Nodes, Process, digits, eventually, free_ports, split_point};

/// Longer than it takes to notice that a cloud hangs, and to ask another.
const DEADLINE: Duration = Duration::from_secs(4);

/// An edge with two clouds, which see the same runs. Gives the clouds.
async fn two_clouds() -> (Nodes, Process, Process) {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let first = nodes.cloud.take().unwrap();
    let [port] = free_ports();
    nodes.edge_sets = vec![
        format!("edge.standby=[\"http://127.0.0.1:{port}\"]"),
        format!("edge.deadline_ms={}", DEADLINE.as_millis()),
    ];
    let second = second_cloud(&mut nodes, port).await;
    (nodes, first, second)
}

async fn second_cloud(nodes: &mut Nodes, port: u16) -> Process {
    nodes.cloud_sets = vec![format!("cloud.listen=127.0.0.1:{port}")];
    nodes.launch_cloud();
    nodes.healthy(port).await;
    nodes.cloud_sets.clear();
    nodes.cloud.take().unwrap()
}

async fn asked(nodes: &Nodes, input: &HostTensor) -> ModelInferResponse {
    let begin = Instant::now();
    let reply = nodes.infer(input.clone()).await;
    let took = begin.elapsed();
    let reply = reply.unwrap_or_else(|status| panic!("after {took:?}: {status}\n{}", nodes.logs()));
    assert!(took < DEADLINE, "{took:?}\n{}", nodes.logs());
    reply
}

#[tokio::test]
async fn another_cloud_takes_over_and_no_request_fails() {
    let (mut nodes, first, mut second) = two_clouds().await;
    nodes.done(&["train", "--run", "a"]).await;
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 3);
    let before = asked(&nodes, &input).await;

    // Killed: connections end at once.
    drop(first);
    for _ in 0..20 {
        let after = asked(&nodes, &input).await;
        assert_eq!(after.raw_output_contents, before.raw_output_contents);
        assert_eq!(split_point(&after), 2);
    }
    // Stopped: its kernel still takes connections, and nobody answers.
    nodes.start_cloud().await;
    second.signal("-STOP");
    for _ in 0..5 {
        let after = asked(&nodes, &input).await;
        assert_eq!(after.raw_output_contents, before.raw_output_contents);
    }
    second.signal("-CONT");
    assert!(second.terminate().success());
    assert!(nodes.cloud.as_mut().unwrap().terminate().success());

    // None is left, and none is needed to say so.
    let refused = async || nodes.infer(input.clone()).await.err();
    for _ in 0..4 {
        refused().await.expect("no cloud is there");
    }
    let begin = Instant::now();
    let status = refused().await.expect("no cloud is there");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("does not answer"), "{status}");
    assert!(begin.elapsed() < DEADLINE / 2, "{:?}", begin.elapsed());
    nodes.start_cloud().await;
    eventually("an answer", async || nodes.infer(input.clone()).await.ok()).await.unwrap();
}

#[tokio::test]
async fn without_a_cloud_the_edge_answers_alone_if_it_may() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.edge_sets = vec!["edge.fallback=whole".into()];
    // There has never been one.
    nodes.start_edge().await;
    let input = digits(&nodes.config(), 3);
    let alone = eventually("an answer", async || nodes.infer(input.clone()).await.ok()).await;
    let alone = alone.unwrap_or_else(|| panic!("{}", nodes.logs()));
    assert_eq!(split_point(&alone), 6);

    nodes.start_cloud().await;
    let cut = async || nodes.infer(input.clone()).await.ok().filter(|r| split_point(r) == 2);
    let with_cloud =
        eventually("the cloud's part", cut).await.unwrap_or_else(|| panic!("{}", nodes.logs()));
    assert_eq!(with_cloud.raw_output_contents, alone.raw_output_contents);

    nodes.cloud = None;
    for _ in 0..10 {
        let again = nodes.infer(input.clone()).await.unwrap();
        assert_eq!(again.raw_output_contents, alone.raw_output_contents);
    }
}
