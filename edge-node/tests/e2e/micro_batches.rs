//! Requests of several clients that cross as one.

use cleave_shared::tensor::batch;
use edge_node::proto::inference::ModelInferResponse;
use futures_util::future::join_all;

use crate::{
    link_proxy::http,
    nodes::{CONFIG, Nodes, digits, eventually},
};

const CLIENTS: usize = 16;

#[tokio::test]
async fn heads_computed_together_answer_as_each_alone() {
    let mut nodes = Nodes::new(CONFIG);
    let sets = ["threads=1", "micro_batch=8", "micro_batch_delay_ms=20"];
    nodes.edge_sets = sets.map(|set| format!("edge.{set}")).into();
    nodes.start_cloud().await;
    nodes.start_edge().await;
    let inputs = batch::split(&digits(&nodes.config(), CLIENTS), &[1; CLIENTS]).unwrap();
    let mut alone = Vec::new();
    for input in &inputs {
        alone.push(logits(&nodes.infer(input.clone()).await.unwrap()));
    }
    assert_ne!(alone[0], alone[1]);
    assert_eq!(micro_batched(&nodes).await, 0, "one after the other");
    let together = async || {
        let asked = inputs.iter().map(|input| nodes.infer(input.clone()));
        for (reply, alone) in join_all(asked).await.into_iter().zip(&alone) {
            assert_near(&logits(&reply.unwrap()), alone);
        }
        (micro_batched(&nodes).await > 0).then_some(())
    };
    let seen = eventually("heads computed together", together).await;
    seen.unwrap_or_else(|| panic!("{}", nodes.logs()));
}

fn logits(reply: &ModelInferResponse) -> Vec<f32> {
    let values = reply.raw_output_contents[0].as_chunks::<4>().0.iter();
    values.map(|value| f32::from_le_bytes(*value)).collect()
}

/// A linear layer adds in another order for several samples.
fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let near = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-5 * largest;
    assert!(found.iter().zip(expected).all(near), "{found:?}, not {expected:?}");
}

/// As the edge counts them.
async fn micro_batched(nodes: &Nodes) -> u64 {
    let text = http(nodes.http_port, "GET", "/metrics", "").await;
    let counted =
        text.lines().find_map(|line| line.strip_prefix("cleave_micro_batched_requests_total "));
    counted.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}
