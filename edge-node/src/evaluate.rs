//! A client of a running edge: sends it the held-out samples, and reports accuracy and latency.
//!
//! It speaks the Open Inference Protocol as any other client does, and knows nothing of the split.

use std::time::{Duration, Instant};

use cleave_shared::{
    config::Config,
    data::{Batch, Feed, Part, Target},
    model::loss::argmax,
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    proto::inference::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
    },
    report::LatencyTable,
    serve::Timing,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What an edge answered to the held-out samples.
#[derive(Debug)]
pub struct Evaluation {
    pub correct: usize,
    pub samples: usize,
    pub split_point: u64,
    pub latency: LatencyTable,
    pub elapsed: Duration,
}

/// One running edge.
pub struct EdgeClient {
    client: GrpcInferenceServiceClient<Channel>,
    address: String,
    model: String,
}

impl EdgeClient {
    pub async fn connect(address: &str, model: &str) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(address.to_string())
            .map_err(|e| format!("{address}: {e}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|_| {
            format!("no edge node answers at {address}; start one with edge-node serve")
        })?;
        let client = GrpcInferenceServiceClient::new(channel);
        Ok(Self { client, address: address.into(), model: model.into() })
    }

    /// Which weights the edge serves: the version of its model.
    pub async fn version(&mut self) -> Result<String, String> {
        let request = ModelMetadataRequest { name: self.model.clone(), version: String::new() };
        let reply = self.client.model_metadata(request).await.map_err(|s| self.explain(&s))?;
        Ok(reply.into_inner().versions.first().cloned().unwrap_or_default())
    }

    /// Sends every held-out sample on its own, one after the other, and checks the answers.
    pub async fn evaluate(&mut self, config: &Config) -> Result<Evaluation, String> {
        let dataset = config.data.open().map_err(|e| e.to_string())?;
        let split = dataset.split(config.seed);
        let feed = Feed::new(&config.model, config.train.loss, dataset)
            .map_err(|e| format!("data: {e}"))?;
        if !matches!(feed.dataset().target(), Target::Classes { .. }) {
            return Err("evaluate counts right classes, which these data have not; edge-node \
                        validate measures a run on any data"
                .into());
        }
        let names: Vec<String> = config.model.inputs().into_iter().map(|p| p.name).collect();
        let test = split.indices(Part::Test);
        let mut latency = LatencyTable::default();
        let (mut correct, mut split_point) = (0, 0);
        let begin = Instant::now();
        for &index in test {
            let sent = Instant::now();
            let Batch { inputs, labels } = feed.batch(&[index]);
            let label = labels.to_i64().map_err(|e| e.to_string())?;
            let (logits, timing, split) = self.infer(as_clients_name(&names, inputs)).await?;
            latency.add(&timing, sent.elapsed().as_secs_f64() * 1e3);
            split_point = split;
            correct += usize::from(label == [argmax(&logits) as i64]);
        }
        let elapsed = begin.elapsed();
        Ok(Evaluation { correct, samples: test.len(), split_point, latency, elapsed })
    }

    async fn infer(&mut self, inputs: NamedTensors) -> Result<(Vec<f32>, Timing, u64), String> {
        let described = inputs.iter().map(|(name, tensor)| InferInputTensor {
            name: name.clone(),
            datatype: tensor.dtype().name().into(),
            shape: tensor.shape().iter().map(|&d| d as i64).collect(),
            ..Default::default()
        });
        let request = ModelInferRequest {
            model_name: self.model.clone(),
            inputs: described.collect(),
            raw_input_contents: inputs.into_iter().map(|(_, t)| t.into_data()).collect(),
            ..Default::default()
        };
        let reply = self.client.model_infer(request).await.map_err(|s| self.explain(&s))?;
        let reply = reply.into_inner();
        let (timing, split) = timing(&reply);
        Ok((logits(reply)?, timing, split))
    }

    fn explain(&self, status: &tonic::Status) -> String {
        format!("the edge at {} answered: {}", self.address, status.message())
    }
}

/// The only input of a model has another name inside; several have one name.
fn as_clients_name(names: &[String], mut inputs: NamedTensors) -> NamedTensors {
    if let ([name], [(inside, _)]) = (names, &mut inputs[..]) {
        inside.clone_from(name);
    }
    inputs
}

fn logits(reply: ModelInferResponse) -> Result<Vec<f32>, String> {
    let data = reply.raw_output_contents.into_iter().next();
    let output = reply.outputs.first().zip(data).and_then(|(output, data)| {
        let shape = output.shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        HostTensor::new(DType::F32, shape, data).ok()?.to_f32().ok()
    });
    output.ok_or_else(|| "the edge's answer has no FP32 output".into())
}

fn timing(reply: &ModelInferResponse) -> (Timing, u64) {
    let number = |name: &str| match reply.parameters.get(name) {
        Some(InferParameter { parameter_choice: Some(choice) }) => match choice {
            ParameterChoice::DoubleParam(v) => *v,
            ParameterChoice::Int64Param(v) => *v as f64,
            ParameterChoice::Uint64Param(v) => *v as f64,
            _ => 0.0,
        },
        _ => 0.0,
    };
    let timing = Timing {
        head_ms: number("head_ms"),
        encode_ms: number("encode_ms"),
        uplink_ms: number("uplink_ms"),
        tail_ms: number("tail_ms"),
        downlink_ms: number("downlink_ms"),
        decode_ms: number("decode_ms"),
    };
    (timing, number("split_point") as u64)
}

impl Evaluation {
    /// Accuracy and the latency table.
    pub fn render(&self, config: &Config) -> String {
        let Self { correct, samples, split_point, .. } = self;
        let stages = config.model.stage_count();
        let accuracy = *correct as f64 / (*samples).max(1) as f64 * 100.0;
        let rate = *samples as f64 / self.elapsed.as_secs_f64().max(1e-9);
        let profile = &config.link.profile;
        format!(
            "test accuracy {accuracy:.2} % ({correct}/{samples})\n\n\
             {samples} requests one after the other, {rate:.1} a second, link {profile}, split \
             point {split_point} of {stages}:\n{}",
            self.latency.render()
        )
    }
}
