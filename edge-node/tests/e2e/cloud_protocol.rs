//! The cloud node against peers that are wrong.

use cleave_shared::{
    config::Config,
    tensor::HostTensor,
    wire::{
        self,
        v1::{self, split_service_client::SplitServiceClient},
    },
};
use tonic::{Code, transport::Channel};

use crate::nodes::{CONFIG, Nodes};

fn agreement(config: &Config) -> v1::Agreement {
    config.agreement(0, "seed:7")
}

fn infer(config: &Config, shape: Vec<usize>) -> v1::InferRequest {
    let values = vec![0.5; shape.iter().product()];
    let tensor = HostTensor::from_f32(shape, &values);
    let activation = wire::encode(vec![("x".into(), tensor)], &cleave_shared::codec::F32);
    v1::InferRequest { agreement: Some(agreement(config)), activation }
}

async fn cloud(config: &str) -> (Nodes, SplitServiceClient<Channel>) {
    let mut nodes = Nodes::new(config);
    nodes.start_cloud().await;
    let address = format!("http://127.0.0.1:{}", nodes.cloud_port);
    let client = SplitServiceClient::connect(address).await.unwrap();
    (nodes, client)
}

#[tokio::test]
async fn a_peer_of_another_version_or_model_is_told_what_differs() {
    let (nodes, mut client) = cloud(CONFIG).await;
    let config = nodes.config();
    let bad = v1::Agreement { protocol_version: 9, ..agreement(&config) };
    let status = client.bind(v1::BindRequest { agreement: Some(bad) }).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("protocol version: edge has 9, cloud has 3"), "{status}");

    let other = Config::default();
    let status = client.infer(infer(&other, vec![1, 1, 8, 8])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("model spec: edge has {\"family\":\"lenet\""), "{status}");
    client.infer(infer(&config, vec![1, 1, 8, 8])).await.expect("a right peer is served");
}

#[tokio::test]
async fn a_bad_activation_is_refused_and_the_cloud_stays_up() {
    let (nodes, mut client) =
        cloud(&format!("{CONFIG}\n[cloud]\nmax_activation_bytes = 1048576")).await;
    let config = nodes.config();
    let good = infer(&config, vec![1, 1, 8, 8]);
    let wrong = [
        (infer(&config, vec![1, 3, 8, 8]), Code::InvalidArgument, "not FP32 [batch, 1, 8, 8]"),
        (infer(&config, vec![64]), Code::InvalidArgument, "[64], not FP32 [batch, 1, 8, 8]"),
        (infer(&config, vec![4097, 1, 8, 8]), Code::ResourceExhausted, "at most 1048576"),
        (
            v1::InferRequest { agreement: None, ..good.clone() },
            Code::InvalidArgument,
            "no agreement",
        ),
        (
            v1::InferRequest { activation: vec![], ..good.clone() },
            Code::InvalidArgument,
            "\"x\" is missing",
        ),
    ];
    let mut truncated = good.clone();
    truncated.activation[0].data.truncate(10);
    let mut lying = good.clone();
    lying.activation[0].shape = vec![u64::MAX, 2, 2, 2];
    let odd = [
        (truncated, Code::InvalidArgument, "after 10 of 256 bytes"),
        (lying, Code::InvalidArgument, "not FP32 [batch, 1, 8, 8]"),
    ];
    for (request, code, text) in wrong.into_iter().chain(odd) {
        let status = client.infer(request).await.expect_err(text);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{text}: {status}");
        client.infer(good.clone()).await.expect("the cloud stays up");
    }
}

#[tokio::test]
async fn a_training_stream_that_makes_no_sense_is_refused() {
    let (nodes, mut client) = cloud(CONFIG).await;
    let config = nodes.config();
    use v1::train_request::Kind;
    let open = |run: &str, training: &str| {
        Kind::Open(v1::TrainOpen {
            agreement: Some(agreement(&config)),
            run: run.into(),
            training: training.into(),
            ..Default::default()
        })
    };
    let sgd = r#"{"loss":"mse","optimizer":{"kind":"sgd","learning_rate":0.1,"momentum":0.0}}"#;
    let checkpoint = Kind::Checkpoint(v1::TrainCheckpoint { id: 5, held: Vec::new() });
    let commit =
        |id, learning_rate| Kind::Commit(v1::TrainCommit { id, learning_rate, scale: 1.0 });
    for (messages, code, text) in [
        (vec![checkpoint.clone()], Code::InvalidArgument, "is not `open`"),
        (vec![open("../x", sgd)], Code::InvalidArgument, "is not a run id"),
        (vec![open("a", "{}")], Code::InvalidArgument, "training spec"),
        (vec![open("a", sgd), checkpoint], Code::Aborted, "the run is at step 0"),
        (vec![open("a", sgd), commit(2, 0.1)], Code::Aborted, "the cloud expects step 1"),
        (vec![open("a", sgd), commit(1, 0.1)], Code::Aborted, "0 of its micro-batches came"),
        (vec![open("a", sgd), commit(1, f64::NAN)], Code::InvalidArgument, "learning rate NaN"),
        (vec![open("a", sgd), open("a", sgd)], Code::InvalidArgument, "open already"),
    ] {
        let messages = messages.into_iter().zip(1..);
        let messages = messages.map(|(kind, number)| v1::TrainRequest { number, kind: Some(kind) });
        let stream = tokio_stream::iter(messages.collect::<Vec<_>>());
        let status = match client.train(stream).await {
            Err(status) => status,
            Ok(replies) => {
                let mut replies = replies.into_inner();
                loop {
                    match replies.message().await {
                        Ok(Some(_)) => {}
                        Ok(None) => panic!("{text}: no error"),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{text}: {status}");
    }
}
