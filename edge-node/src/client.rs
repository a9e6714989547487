//! A client of a running edge: one request at a time over gRPC, and the answer with where its time went.
//!
//! It speaks the Open Inference Protocol as any other client does, and knows nothing of the split: what the
//! model takes it asks for, and the split point is a parameter of the answer.

use std::time::Duration;

use bytes::Bytes;
use cleave_shared::{
    tensor::{DType, HostTensor},
    wire::NamedTensors,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    proto::inference::{
        ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
        model_infer_response::InferOutputTensor,
    },
    serve::{TEXT_DTYPE, Timing},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One running edge.
pub struct EdgeClient {
    client: GrpcInferenceServiceClient<Channel>,
    address: String,
    model: String,
}

/// What an edge answered to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In the model's order, `[batch, ...]` each.
    pub outputs: NamedTensors,
    pub timing: Timing,
    pub split_point: u64,
    /// Which weights answered.
    pub version: String,
    /// The stage behind which samples left, or "none"; nothing if the edge has no exits.
    pub exit: Option<String>,
    /// Whether exits answered because the cloud did not.
    pub offline: bool,
}

impl EdgeClient {
    /// `address`: `http://HOST:PORT`. Waits 5 s at most.
    pub async fn connect(address: &str, model: &str) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(address.to_string())
            .map_err(|e| format!("{address}: {e}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|_| {
            format!("no edge node answers at {address}; start one with edge-node serve")
        })?;
        // Logits of a language model over a long sequence are far more than tonic's 4 MiB.
        let client = GrpcInferenceServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self { client, address: address.into(), model: model.into() })
    }

    /// What the model takes and gives, and which weights it has.
    pub async fn metadata(&mut self) -> Result<ModelMetadataResponse, String> {
        let request = ModelMetadataRequest { name: self.model.clone(), version: String::new() };
        let reply = self.client.model_metadata(request).await.map_err(|s| self.explain(&s))?;
        Ok(reply.into_inner())
    }

    /// Which weights the edge serves: the version of its model.
    pub async fn version(&mut self) -> Result<String, String> {
        Ok(self.metadata().await?.versions.first().cloned().unwrap_or_default())
    }

    /// Asks about one batch: tensors by the names of the model's inputs, `[batch, ...]` each.
    pub async fn infer(&mut self, inputs: NamedTensors) -> Result<Answer, String> {
        let described = inputs.iter().map(|(name, tensor)| InferInputTensor {
            name: name.clone(),
            datatype: tensor.dtype().name().into(),
            shape: tensor.shape().iter().map(|&d| d as i64).collect(),
            ..Default::default()
        });
        let described = described.collect();
        self.send(described, inputs.into_iter().map(|(_, t)| t.into_data()).collect()).await
    }

    /// Asks about texts, one for each sample of a batch; `input` is the name of the input that takes them.
    pub async fn infer_texts(&mut self, input: &str, texts: &[String]) -> Result<Answer, String> {
        let described = InferInputTensor {
            name: input.into(),
            datatype: TEXT_DTYPE.into(),
            shape: vec![texts.len() as i64],
            ..Default::default()
        };
        // Raw, an element of BYTES stands behind its length.
        let element = |text: &String| {
            let length = (text.len() as u32).to_le_bytes();
            length.into_iter().chain(text.bytes()).collect::<Vec<u8>>()
        };
        let raw: Vec<u8> = texts.iter().flat_map(element).collect();
        self.send(vec![described], vec![raw.into()]).await
    }

    async fn send(
        &mut self,
        inputs: Vec<InferInputTensor>,
        raw_input_contents: Vec<Bytes>,
    ) -> Result<Answer, String> {
        let model_name = self.model.clone();
        let request =
            ModelInferRequest { model_name, inputs, raw_input_contents, ..Default::default() };
        let reply = self.client.model_infer(request).await.map_err(|s| self.explain(&s))?;
        answer(reply.into_inner())
    }

    fn explain(&self, status: &tonic::Status) -> String {
        format!("the edge at {} answered: {}", self.address, status.message())
    }
}

fn answer(reply: ModelInferResponse) -> Result<Answer, String> {
    let number = |name| number(&reply, name);
    let timing = Timing {
        head_ms: number("head_ms"),
        encode_ms: number("encode_ms"),
        uplink_ms: number("uplink_ms"),
        tail_ms: number("tail_ms"),
        downlink_ms: number("downlink_ms"),
        decode_ms: number("decode_ms"),
    };
    let split_point = number("split_point") as u64;
    let exit = match choice(&reply, "exit") {
        Some(ParameterChoice::StringParam(stage)) => Some(stage.clone()),
        _ => None,
    };
    let offline = matches!(choice(&reply, "offline"), Some(ParameterChoice::BoolParam(true)));
    let outputs = tensors(reply.outputs, reply.raw_output_contents)?;
    Ok(Answer { outputs, timing, split_point, version: reply.model_version, exit, offline })
}

fn choice<'a>(reply: &'a ModelInferResponse, name: &str) -> Option<&'a ParameterChoice> {
    reply.parameters.get(name)?.parameter_choice.as_ref()
}

/// A parameter of the answer as a number; 0 if there is none.
fn number(reply: &ModelInferResponse, name: &str) -> f64 {
    match choice(reply, name) {
        Some(ParameterChoice::DoubleParam(v)) => *v,
        Some(ParameterChoice::Int64Param(v)) => *v as f64,
        Some(ParameterChoice::Uint64Param(v)) => *v as f64,
        _ => 0.0,
    }
}

fn tensors(outputs: Vec<InferOutputTensor>, raw: Vec<Bytes>) -> Result<NamedTensors, String> {
    if outputs.len() != raw.len() {
        let (described, found) = (outputs.len(), raw.len());
        return Err(format!("the edge's answer describes {described} outputs and has {found}"));
    }
    outputs.into_iter().zip(raw).map(|(output, data)| tensor(output, data)).collect()
}

fn tensor(output: InferOutputTensor, data: Bytes) -> Result<(String, HostTensor), String> {
    let InferOutputTensor { name, datatype, shape, .. } = output;
    let wrong = |problem: String| format!("the edge's answer, output {name:?}: {problem}");
    let dtype = DType::from_name(&datatype)
        .ok_or_else(|| wrong(format!("its datatype is {datatype:?}")))?;
    // An extent below 0 cannot be that of any data.
    let extents = shape.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
    let tensor = HostTensor::new(dtype, extents, data).map_err(|e| wrong(e.to_string()))?;
    Ok((name, tensor))
}
