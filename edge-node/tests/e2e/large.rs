//! Activations far larger than a message.

use std::fs;

use cleave_shared::{
    codec::F32,
    link::Link,
    model::{SeededWeights, Segment},
    tensor::HostTensor,
    wire::{self, PROTOCOL_VERSION, v1},
};
use edge_node::{cloud::InferCall, stack};

use crate::nodes::Nodes;

const CONFIG: &str = r#"
split_point = 0
[model]
family = "mlp"
input = [1, 8, 8]
hidden = []
classes = 10
[link]
profile = "none"
"#;

/// 2^20 samples of 64 FP32 values: 256 MiB.
const BATCH: usize = 1 << 20;
const ACTIVATION_MIB: u64 = 256;
/// The output, `[2^20, 10]` FP32.
const OUTPUT_MIB: u64 = 40;

#[tokio::test]
async fn a_256_mib_activation_passes_with_bounded_memory() {
    let mut nodes = Nodes::new(CONFIG);
    nodes.start_cloud().await;
    let config = nodes.config();
    let values: Vec<f32> = (0..BATCH * 64).map(|i| (i % 1013) as f32 / 1013.0).collect();
    let input = HostTensor::from_f32(vec![BATCH, 1, 8, 8], &values);
    drop(values);
    let whole = Segment::build(&config.model, 0..1, &mut SeededWeights(7), false).unwrap();
    let expected = whole.infer(&vec![("x".into(), input.clone())]).unwrap();

    let client = stack::client(&config, &Link::new(config.link_profile(), 1)).unwrap();
    let call = InferCall {
        agreement: v1::Agreement {
            protocol_version: PROTOCOL_VERSION,
            spec_hash: config.model.hash(),
            activation_codec: "f32".into(),
            gradient_codec: "f32".into(),
            weights: "seed:7".into(),
            weight_format: "none".into(),
            ..Default::default()
        },
        activation: wire::encode(vec![("x".into(), input)], &F32),
        output_bytes: BATCH * 10 * 4,
        deadline: None,
    };
    let answer = client.infer(call).await.unwrap();
    assert_eq!(wire::decode(answer.reply.output, &F32).unwrap(), expected);

    // The activation as it arrives, and as the device's tensor; the output, and what the linear
    // layer makes on its way to it; the process itself.
    let most = 2 * ACTIVATION_MIB + 4 * OUTPUT_MIB + 64;
    let peak = peak_mib(nodes.cloud.as_ref().unwrap().0.id());
    println!("peak of the cloud process: {peak} MiB");
    assert!(peak <= most, "the cloud took {peak} MiB, more than {most}");
}

fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}
