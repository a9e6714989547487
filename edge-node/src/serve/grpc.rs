//! The Open Inference Protocol v2 over gRPC: generated messages in, generated messages out.
//!
//! Raw tensors pass through as [`Bytes`], so that this layer costs no copy in either direction.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use cleave_shared::tensor::HostTensor;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Generator, InferError, ModelInfo, Prediction, Predictor, SERVER_EXTENSIONS, SERVER_NAME,
    SERVER_VERSION, grpc_stream,
    request::{self, Contents, INPUT_DTYPE, Stated, check_model, shown},
    text::TextService,
};
use crate::proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStreamInferResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
    infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
    model_infer_response::InferOutputTensor,
    model_metadata_response::TensorMetadata,
};

/// The service over one model; made by [`grpc_service`].
pub struct GrpcInference<P, G> {
    pub(super) predictor: Arc<P>,
    pub(super) text: Arc<TextService<G>>,
}

impl<P, G> Clone for GrpcInference<P, G> {
    fn clone(&self) -> Self {
        Self { predictor: self.predictor.clone(), text: self.text.clone() }
    }
}

/// The tonic service over one model.
pub type GrpcService<P, G> = GrpcInferenceServiceServer<GrpcInference<P, G>>;

/// The service, ready to be added to a tonic server. Longer requests are refused while decoding.
pub fn grpc_service<P: Predictor, G: Generator>(
    predictor: Arc<P>,
    text: Arc<TextService<G>>,
    max_message_bytes: usize,
) -> GrpcService<P, G> {
    GrpcInferenceServiceServer::new(GrpcInference { predictor, text })
        .max_decoding_message_size(max_message_bytes)
}

#[tonic::async_trait]
impl<P: Predictor, G: Generator> GrpcInferenceService for GrpcInference<P, G> {
    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        requests: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let answers = grpc_stream::answers(self.clone(), requests.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.predictor.ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let asked = request.into_inner();
        check_model(&self.predictor.model(), &asked.name, &asked.version)?;
        Ok(Response::new(ModelReadyResponse { ready: self.predictor.ready() }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: SERVER_NAME.into(),
            version: SERVER_VERSION.into(),
            extensions: SERVER_EXTENSIONS.map(String::from).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (info, asked) = (self.predictor.model(), request.into_inner());
        check_model(&info, &asked.name, &asked.version)?;
        Ok(Response::new(metadata(info)))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (info, mut request) = (self.predictor.model(), request.into_inner());
        let id = std::mem::take(&mut request.id);
        let input = parse(&info, request)?;
        let prediction = self.predictor.predict(input).await?;
        Ok(Response::new(reply(info, id, prediction)))
    }
}

fn metadata(info: ModelInfo) -> ModelMetadataResponse {
    let tensor = |name: String, shape: &[usize]| TensorMetadata {
        name,
        datatype: INPUT_DTYPE.name().into(),
        shape: std::iter::once(-1).chain(wire_shape(shape)).collect(),
    };
    ModelMetadataResponse {
        name: info.name,
        versions: vec![info.version],
        platform: info.platform,
        inputs: vec![tensor(info.input_name, &info.input_shape)],
        outputs: vec![tensor(info.output_name, &info.output_shape)],
    }
}

/// Reads and checks one request.
fn parse(info: &ModelInfo, request: ModelInferRequest) -> Result<HostTensor, InferError> {
    check_model(info, &request.model_name, &request.model_version)?;
    request::check_outputs(info, request.outputs.iter().map(|o| o.name.as_str()))?;
    for output in &request.outputs {
        let keys = output.parameters.keys().map(String::as_str);
        request::check_parameters("the requested output", keys)?;
    }
    let mut input = request::only_input(info, request.inputs, |i| &i.name)?;
    let contents = contents(&mut input, request.raw_input_contents)?;
    let stated = Stated { name: &input.name, datatype: &input.datatype, shape: &input.shape };
    request::validate(info, stated, contents)
}

/// Where the values of the input are: in raw_input_contents, or typed in the input itself.
fn contents(
    input: &mut InferInputTensor,
    raw: Vec<Bytes>,
) -> Result<Contents<'static>, InferError> {
    let bad = |message| Err(InferError::BadInput(message));
    let name = shown(&input.name);
    let keys = input.parameters.keys().map(String::as_str);
    request::check_parameters(&format!("input {name}"), keys)?;
    let count = raw.len();
    match (raw.into_iter().next(), input.contents.take()) {
        (Some(_), Some(_)) => bad(format!(
            "input {name} has contents and raw_input_contents is used too; send one of them"
        )),
        (Some(_), None) if count > 1 => {
            bad(format!("raw_input_contents has {count} entries for 1 input; send one"))
        }
        (Some(raw), None) => Ok(Contents::Raw(raw)),
        (None, Some(typed)) => match stray_field(&typed) {
            Some(field) => bad(format!(
                "input {name} has values in {field}; those of FP32 go in fp32_contents"
            )),
            None => Ok(Contents::Values(typed.fp32_contents)),
        },
        (None, None) => bad(format!(
            "input {name} has no contents; send raw_input_contents or contents.fp32_contents"
        )),
    }
}

/// A list of typed values, other than the one for FP32, that is not empty.
fn stray_field(typed: &InferTensorContents) -> Option<&'static str> {
    let lists = [
        ("bool_contents", typed.bool_contents.is_empty()),
        ("int_contents", typed.int_contents.is_empty()),
        ("int64_contents", typed.int64_contents.is_empty()),
        ("uint_contents", typed.uint_contents.is_empty()),
        ("uint64_contents", typed.uint64_contents.is_empty()),
        ("fp64_contents", typed.fp64_contents.is_empty()),
        ("bytes_contents", typed.bytes_contents.is_empty()),
    ];
    lists.into_iter().find(|(_, empty)| !empty).map(|(name, _)| name)
}

fn reply(info: ModelInfo, id: String, prediction: Prediction) -> ModelInferResponse {
    let output = prediction.output;
    let split = i64::try_from(prediction.split_point).unwrap_or(i64::MAX);
    let mut parameters =
        HashMap::from([parameter("split_point", ParameterChoice::Int64Param(split))]);
    let timing = prediction.timing.parameters();
    parameters.extend(timing.map(|(k, ms)| parameter(k, ParameterChoice::DoubleParam(ms))));
    ModelInferResponse {
        model_name: info.name,
        model_version: info.version,
        id,
        parameters,
        outputs: vec![InferOutputTensor {
            name: info.output_name,
            datatype: output.dtype().name().into(),
            shape: wire_shape(output.shape()).collect(),
            ..Default::default()
        }],
        // Raw even when the request was typed, as Triton does: every client reads this form.
        raw_output_contents: vec![output.into_data()],
    }
}

pub(super) fn parameter(key: &str, value: ParameterChoice) -> (String, InferParameter) {
    (key.to_string(), InferParameter { parameter_choice: Some(value) })
}

fn wire_shape(shape: &[usize]) -> impl Iterator<Item = i64> {
    shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
