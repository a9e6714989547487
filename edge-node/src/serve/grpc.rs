//! The Open Inference Protocol v2 over gRPC: generated messages in, generated messages out.
//!
//! Raw tensors pass through as [`Bytes`], so that this layer costs no copy in either direction.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use cleave_shared::{
    deadline::Deadline,
    model::Port,
    tensor::{DType, HostTensor},
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Control, EXITS, ExitUse, Generator, InferError, InferRequest, ModelInfo, Prediction, Predictor,
    Query, SERVER_EXTENSIONS, SERVER_NAME, SERVER_VERSION,
    control::grpc as control,
    grpc_stream,
    request::{
        self, Contents, Stated, TEXT, TEXT_DTYPE, TIMEOUT, check_model, metadata_shape, shown,
    },
    text::TextService,
};
use crate::proto::inference::{
    InferParameter, InferTensorContents, LogSettingsRequest, LogSettingsResponse,
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse, TraceSettingRequest, TraceSettingResponse,
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
    control: Arc<dyn Control>,
}

impl<P, G> Clone for GrpcInference<P, G> {
    fn clone(&self) -> Self {
        let (predictor, text) = (self.predictor.clone(), self.text.clone());
        Self { predictor, text, control: self.control.clone() }
    }
}

/// The tonic service over one model.
pub type GrpcService<P, G> = GrpcInferenceServiceServer<GrpcInference<P, G>>;

/// The service, ready to be added to a tonic server. Longer requests are refused while decoding.
pub fn grpc_service<P: Predictor, G: Generator>(
    predictor: Arc<P>,
    text: Arc<TextService<G>>,
    control: Arc<dyn Control>,
    max_message_bytes: usize,
) -> GrpcService<P, G> {
    GrpcInferenceServiceServer::new(GrpcInference { predictor, text, control })
        .max_decoding_message_size(max_message_bytes)
}

impl<P: Predictor, G: Generator> GrpcInference<P, G> {
    /// Answers one request. `call`: when the client ends the call that it came in, if it says so.
    pub(super) async fn infer(
        &self,
        mut request: ModelInferRequest,
        call: Option<Deadline>,
    ) -> Result<ModelInferResponse, InferError> {
        let info = self.predictor.model();
        let id = std::mem::take(&mut request.id);
        request::check_id(&id)?;
        let exits = allows_exits(&request.parameters)?;
        let own = deadline(&request.parameters)?;
        let (query, outputs) = parse(&info, request)?;
        let deadline = [call, own].into_iter().flatten().min();
        let request = InferRequest { query, exits, deadline };
        let prediction = self.predictor.predict(request).await?;
        Ok(reply(info, id, prediction, &outputs))
    }
}

#[tonic::async_trait]
impl<P: Predictor, G: Generator> GrpcInferenceService for GrpcInference<P, G> {
    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        requests: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let answers = grpc_stream::answers(self.clone(), requests);
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
        let deadline = Deadline::of(request.metadata());
        Ok(Response::new(self.infer(request.into_inner(), deadline).await?))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        control::model_config(&self.predictor.model(), request.get_ref())
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        control::statistics(self.predictor.model(), &*self.control, request.get_ref())
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        control::index(&*self.predictor, request.get_ref())
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        control::load(&self.predictor.model(), &*self.control, request).await
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        control::unload(&self.predictor.model(), &*self.control, request)
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        control::trace_setting(&self.predictor.model(), &*self.control, request)
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        control::log_settings(&*self.control, request)
    }
}

fn metadata(info: ModelInfo) -> ModelMetadataResponse {
    let tensor = |port: &Port| TensorMetadata {
        name: port.name.clone(),
        datatype: port.dtype.name().into(),
        shape: metadata_shape(port),
    };
    let text = info.takes_text.then(|| TensorMetadata {
        name: TEXT.into(),
        datatype: TEXT_DTYPE.into(),
        shape: vec![-1],
    });
    ModelMetadataResponse {
        inputs: info.inputs.iter().map(tensor).chain(text).collect(),
        outputs: info.outputs.iter().map(tensor).collect(),
        name: info.name,
        versions: vec![info.version],
        platform: info.platform,
    }
}

/// Reads and checks one request; also gives the outputs that it asks for.
fn parse(info: &ModelInfo, request: ModelInferRequest) -> Result<(Query, Vec<usize>), InferError> {
    check_model(info, &request.model_name, &request.model_version)?;
    let outputs = request::check_outputs(info, request.outputs.iter().map(|o| o.name.as_str()))?;
    for output in &request.outputs {
        let keys = output.parameters.keys().map(String::as_str);
        request::check_parameters("the requested output", keys)?;
    }
    let names: Vec<&str> = request.inputs.iter().map(|i| i.name.as_str()).collect();
    request::check_inputs(info, &names)?;
    let (mut inputs, raw) = (request.inputs, request.raw_input_contents);
    let (count, sent) = (raw.len(), inputs.len());
    if count > 0 && count != sent && inputs.iter().all(|i| i.contents.is_none()) {
        let (s, each) = if sent == 1 { ("", "send one") } else { ("s", "send one for each") };
        return Err(InferError::BadInput(format!(
            "raw_input_contents has {count} entries for {sent} input{s}; {each}"
        )));
    }
    let mut raw = raw.into_iter();
    let contents = inputs.iter_mut().map(|input| contents(input, raw.next()));
    let contents = contents.collect::<Result<Vec<_>, _>>()?;
    let stated =
        inputs.iter().map(|i| Stated { name: &i.name, datatype: &i.datatype, shape: &i.shape });
    Ok((request::validate(info, stated.zip(contents).collect())?, outputs))
}

/// What the request says of exits; they may answer where it says nothing.
fn allows_exits(parameters: &HashMap<String, InferParameter>) -> Result<bool, InferError> {
    match parameters.get(EXITS).map(|p| &p.parameter_choice) {
        None => Ok(true),
        Some(Some(ParameterChoice::BoolParam(allowed))) => Ok(*allowed),
        Some(_) => Err(InferError::BadInput(format!("the parameter {EXITS} is not true or false"))),
    }
}

/// When the client stops waiting, if a parameter says so.
fn deadline(parameters: &HashMap<String, InferParameter>) -> Result<Option<Deadline>, InferError> {
    let Some(parameter) = parameters.get(TIMEOUT) else { return Ok(None) };
    request::deadline(match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(micros)) => u64::try_from(micros).ok(),
        Some(ParameterChoice::Uint64Param(micros)) => Some(micros),
        _ => None,
    })
}

/// Where the values of an input are: in raw_input_contents, or typed in the input itself.
fn contents(
    input: &mut InferInputTensor,
    raw: Option<Bytes>,
) -> Result<Contents<'static>, InferError> {
    let bad = |message| Err(InferError::BadInput(message));
    let name = shown(&input.name);
    let keys = input.parameters.keys().map(String::as_str);
    request::check_parameters(&format!("input {name}"), keys)?;
    let (field, datatype) = field(&input.datatype);
    match (raw, input.contents.take()) {
        (Some(_), Some(_)) => bad(format!(
            "input {name} has contents and raw_input_contents is used too; send one of them"
        )),
        (Some(raw), None) => Ok(Contents::Raw(raw)),
        (None, Some(typed)) => match stray_field(&typed, field) {
            Some(stray) => bad(format!(
                "input {name} has values in {stray}; those of {datatype} go in {field}"
            )),
            None => Ok(match field {
                "int64_contents" => Contents::Integers(typed.int64_contents),
                "int_contents" => {
                    Contents::Integers(typed.int_contents.into_iter().map(i64::from).collect())
                }
                "bytes_contents" => Contents::Texts(typed.bytes_contents),
                _ => Contents::Floats(typed.fp32_contents),
            }),
        },
        (None, None) => bad(format!(
            "input {name} has no contents; send raw_input_contents or contents.{field}"
        )),
    }
}

/// The list that typed values of this datatype go in. One that no input has is refused later.
fn field(datatype: &str) -> (&'static str, &'static str) {
    match datatype {
        TEXT_DTYPE => ("bytes_contents", TEXT_DTYPE),
        _ => match DType::from_name(datatype) {
            Some(DType::I64) => ("int64_contents", "INT64"),
            Some(DType::I32) => ("int_contents", "INT32"),
            _ => ("fp32_contents", "FP32"),
        },
    }
}

/// A list of typed values, other than this one, that is not empty.
fn stray_field(typed: &InferTensorContents, right: &str) -> Option<&'static str> {
    let lists = [
        ("bool_contents", typed.bool_contents.is_empty()),
        ("int_contents", typed.int_contents.is_empty()),
        ("int64_contents", typed.int64_contents.is_empty()),
        ("uint_contents", typed.uint_contents.is_empty()),
        ("uint64_contents", typed.uint64_contents.is_empty()),
        ("fp32_contents", typed.fp32_contents.is_empty()),
        ("fp64_contents", typed.fp64_contents.is_empty()),
        ("bytes_contents", typed.bytes_contents.is_empty()),
    ];
    lists.into_iter().find(|(name, empty)| !empty && *name != right).map(|(name, _)| name)
}

fn reply(
    info: ModelInfo,
    id: String,
    prediction: Prediction,
    outputs: &[usize],
) -> ModelInferResponse {
    let split = i64::try_from(prediction.split_point).unwrap_or(i64::MAX);
    let mut parameters =
        HashMap::from([parameter("split_point", ParameterChoice::Int64Param(split))]);
    let timing = prediction.timing.parameters();
    parameters.extend(timing.map(|(k, ms)| parameter(k, ParameterChoice::DoubleParam(ms))));
    if let Some(ExitUse { exit, confidence, offline }) = prediction.exits {
        parameters.extend([
            parameter("exit", ParameterChoice::StringParam(exit)),
            parameter("confidence", ParameterChoice::DoubleParam(confidence)),
            parameter("offline", ParameterChoice::BoolParam(offline)),
        ]);
    }
    let wanted = outputs.iter().filter_map(|&i| prediction.outputs.get(i));
    let tensor = |(name, output): &(String, HostTensor)| InferOutputTensor {
        name: name.clone(),
        datatype: output.dtype().name().into(),
        shape: output.shape().iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect(),
        ..Default::default()
    };
    ModelInferResponse {
        model_name: info.name,
        model_version: info.version,
        id,
        parameters,
        outputs: wanted.clone().map(tensor).collect(),
        // Raw even when the request was typed, as Triton does: every client reads this form.
        raw_output_contents: wanted.map(|(_, output)| output.data().clone()).collect(),
    }
}

pub(super) fn parameter(key: &str, value: ParameterChoice) -> (String, InferParameter) {
    (key.to_string(), InferParameter { parameter_choice: Some(value) })
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
