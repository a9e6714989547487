//! An edge's call: from the tensors that leave a head to the tensors that a tail has made of them,
//! through the very client that an edge has.

use std::{ops::Range, time::Duration};

use cleave_shared::{
    codec::F32,
    config::Config,
    deadline::Deadline,
    link::{Link, Profile},
    model::{ModelSpec, SeededWeights, Segment},
    tensor::{DType, HostTensor},
    wire::{
        self, NamedTensors,
        v1::{Agreement, InferRequest},
    },
};
use edge_node::{
    cloud::{CloudClient, InferCall, explain},
    stack,
};
use prost::Message;

use super::trips::{RoundTrip, compare, content};

/// Of the weights.
const SEED: u64 = 7;
/// Every request of an edge has a deadline, which is sent with it and watched; this one is never
/// reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks the same over and over.
pub struct Edge {
    client: CloudClient,
    agreement: Agreement,
    activation: NamedTensors,
    expected: NamedTensors,
    received: NamedTensors,
}

impl Edge {
    /// One FP32 tensor of so many bytes, to a cloud that gives it back.
    pub fn of_echo(port: u16, bytes: usize) -> Result<Self, String> {
        let tensor = HostTensor::new(DType::F32, vec![1, bytes / 4], content(bytes));
        let tensor = tensor.map_err(|e| format!("--bytes: {e}"))?;
        let sent = vec![("x".to_string(), tensor)];
        Self::new(port, 0, sent.clone(), sent)
    }

    /// What the last stage of the default model takes, to a cloud that runs it.
    pub async fn of_cloud(port: u16) -> Result<Self, String> {
        let spec = Config::default().model;
        let last = spec.stage_count() - 1;
        let activation = infer(&spec, 0..last, &sample(&spec))?;
        let expected = infer(&spec, last..last + 1, &activation)?;
        let edge = Self::new(port, last, activation, expected)?;
        edge.bind().await?;
        Ok(edge)
    }

    fn new(
        port: u16,
        split: usize,
        activation: NamedTensors,
        expected: NamedTensors,
    ) -> Result<Self, String> {
        let mut config = Config::default();
        config.edge.cloud = format!("http://127.0.0.1:{port}");
        config.link.resolved = Profile::builtin("none").ok_or("there is no profile \"none\"")?;
        let client = stack::client(&config, &Link::new(config.link_profile(), config.link.seed))?;
        let agreement = config.agreement(split, &format!("seed:{SEED}"));
        // Only the handshake has the spec; later its hash is enough.
        let agreement = Agreement { spec: String::new(), ..agreement };
        Ok(Self { client, agreement, activation, expected, received: NamedTensors::new() })
    }

    /// The handshake, for which an edge sends the spec as well.
    async fn bind(&self) -> Result<(), String> {
        let spec = Config::default().model.canonical();
        let bound = self.client.bind(&Agreement { spec, ..self.agreement.clone() }).await;
        let bound = bound.map_err(|status| explain(self.client.address(), &status))?;
        match bound.missing_stages.is_empty() {
            true => Ok(()),
            false => Err(format!("the cloud lacks weights of {:?}", bound.missing_stages)),
        }
    }
}

impl RoundTrip for Edge {
    fn request_bytes(&self) -> usize {
        let activation = wire::encode(self.activation.clone(), &F32);
        InferRequest { agreement: Some(self.agreement.clone()), activation }.encoded_len()
    }

    async fn trip(&mut self) -> Result<(), String> {
        let call = InferCall {
            agreement: self.agreement.clone(),
            activation: wire::encode(self.activation.clone(), &F32),
            output_bytes: self.expected.iter().map(|(_, tensor)| tensor.data().len()).sum(),
            deadline: Some(Deadline::after(PATIENCE)),
        };
        let answer = self.client.infer(call).await;
        let answer = answer.map_err(|status| explain(self.client.address(), &status))?;
        let output = wire::decode(answer.reply.output, &F32);
        self.received = output.map_err(|e| format!("the cloud's answer: {e}"))?;
        Ok(())
    }

    fn check(&mut self, whole: bool) -> Result<(), String> {
        let received = std::mem::take(&mut self.received);
        if received.len() != self.expected.len() {
            let (found, expected) = (received.len(), self.expected.len());
            return Err(format!("{found} tensors came back, not {expected}"));
        }
        for ((name, tensor), (_, expected)) in received.iter().zip(&self.expected) {
            if tensor.shape() != expected.shape() {
                let (found, shape) = (tensor.shape(), expected.shape());
                return Err(format!("tensor {name:?} has shape {found:?}, not {shape:?}"));
            }
            compare(tensor.data(), expected.data(), whole)?;
        }
        Ok(())
    }
}

/// One sample of what the model takes.
fn sample(spec: &ModelSpec) -> NamedTensors {
    let shape: Vec<usize> = [1].into_iter().chain(spec.input_shape()).collect();
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i % 17) as f32 / 17.0).collect();
    vec![("x".to_string(), HostTensor::from_f32(shape, &values))]
}

fn infer(
    spec: &ModelSpec,
    stages: Range<usize>,
    input: &NamedTensors,
) -> Result<NamedTensors, String> {
    let built = Segment::build(spec, stages, &mut SeededWeights(SEED), false);
    built.and_then(|segment| segment.infer(input)).map_err(|e| e.to_string())
}
