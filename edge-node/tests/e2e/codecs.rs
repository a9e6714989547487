//! Codecs between the real nodes: what arrives is what the codec makes of it, and no more.

use std::fs;

use cleave_shared::{
    codec::by_name,
    model::{SeededWeights, Segment},
    wire::{
        self,
        v1::{self, split_service_client::SplitServiceClient},
    },
};
use tonic::Code;

use crate::nodes::{CONFIG, Nodes, digits, eventually};

#[tokio::test]
async fn a_codec_changes_while_the_edge_serves_and_touches_the_activation_only() {
    let nodes = Nodes::start(CONFIG).await;
    let config = nodes.config();
    let build = |range| {
        Segment::build(&config.model, range, &mut SeededWeights(config.seed), false).unwrap()
    };
    let (split, stages) = (config.split_point, config.model.stage_count());
    let (head, tail) = (build(0..split), build(split..stages));
    let input = digits(&config, 3);
    let activation = head.infer(&vec![("x".into(), input.clone())]).unwrap();
    for name in ["f16", "int4", "int8+zstd", "topk:0.1", "randk:0.5+lz4", "f32"] {
        let codec = by_name(name).unwrap();
        let sent = wire::encode(activation.clone(), codec.as_ref());
        let arrived = wire::decode(sent, codec.as_ref()).unwrap();
        // Equal bit for bit: the answer came as it is.
        let expected = tail.infer(&arrived).unwrap().remove(0).1;
        nodes.write_config(&format!("{CONFIG}[codec]\nactivation = \"{name}\"\n"));
        let answered = eventually("an answer through the codec", async || {
            let reply = nodes.infer(input.clone()).await.unwrap();
            (reply.raw_output_contents[0] == expected.data()).then_some(())
        });
        answered.await.unwrap_or_else(|| panic!("{name}: {}", nodes.logs()));
    }
}

#[tokio::test]
async fn the_cloud_takes_what_it_allows_and_says_what_that_is() {
    let mut nodes = Nodes::new(&format!("{CONFIG}[codec]\nallowed = [\"f32\", \"topk\"]\n"));
    nodes.start_cloud().await;
    let address = format!("http://127.0.0.1:{}", nodes.cloud_port);
    let mut client = SplitServiceClient::connect(address).await.unwrap();
    let agreement = nodes.config().agreement(2, "seed:7");
    let mut bind = async |activation: &str, gradient: &str| {
        let (activation_codec, gradient_codec) = (activation.into(), gradient.into());
        let agreement = v1::Agreement { activation_codec, gradient_codec, ..agreement.clone() };
        client.bind(v1::BindRequest { agreement: Some(agreement) }).await
    };
    bind("topk:0.1", "f32").await.unwrap();
    let status = bind("int8", "topk:0.2+zstd").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "edge and cloud differ: activation codec: \"int8\" is not allowed; allowed: f32, topk \
         (codec.allowed); gradient codec: \"topk:0.2+zstd\" is not allowed; allowed: f32, topk \
         (codec.allowed)"
    );
    let status = bind("topk:2", "f32").await.unwrap_err();
    assert!(status.message().contains("allowed: 0.0001 to 1"), "{status}");
}

#[tokio::test]
async fn a_run_keeps_its_codecs_and_what_they_left_out() {
    let codecs = "[codec]\nactivation = \"int8\"\ngradient = \"topk:0.1\"\n";
    let mut nodes = Nodes::new(&format!("{CONFIG}{codecs}"));
    nodes.start_cloud().await;
    nodes.finishes(nodes.launch_training(&["--run", "a", "--no-deploy"])).await;
    let newest = fs::read_dir(nodes.runs().join("cloud/a")).unwrap().flatten();
    let newest = newest.map(|e| e.path()).filter(|p| p.is_dir()).max().unwrap();
    assert!(newest.join("left.out.safetensors").is_file(), "{}", newest.display());

    // The edge's own record out of the way, the cloud still knows.
    let record = nodes.runs().join("edge/a/run.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("topk:0.1", "f32")).unwrap();
    nodes.write_config(&format!("{CONFIG}{}", codecs.replace("topk:0.1", "f32")));
    let output =
        nodes.edge_command(&["train", "--run", "a", "--resume", "--no-deploy"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = "gradient codec: edge has f32, the run has topk:0.1";
    assert!(!output.status.success() && text.contains(expected), "{text}");
}
