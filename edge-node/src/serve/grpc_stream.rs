//! `ModelStreamInfer`: a stream of requests, each answered by one response or by many.
//!
//! A model that generates answers as Triton's decoupled models do: a response for each piece of
//! text, the last of which says so. Other models answer each request once. Requests of one stream
//! are answered one after the other; one that fails does not end the stream. A client that cancels
//! drops the stream, and with it the generation.

use std::collections::HashMap;

use bytes::Bytes;
use cleave_shared::{deadline::Deadline, tensor::HostTensor};
use futures_util::stream;
use tokio_stream::Stream;
use tonic::{Request, Status, Streaming};

use super::{
    Generator, InferError, ModelInfo, Predictor,
    grpc::{GrpcInference, parameter},
    grpc_stream_request::{
        self as asked, Asked, LOGPROB_OUTPUT, Prompt, TEXT_OUTPUT, TOKEN_OUTPUT,
    },
    request::check_id,
    text::{Piece, Pieces, TextRequest, reason},
};
use crate::proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
    infer_parameter::ParameterChoice, model_infer_response::InferOutputTensor,
};

/// Triton's mark of the last response to a request.
const FINAL: &str = "triton_final_response";

type Answer = Result<ModelStreamInferResponse, Status>;

/// Answers the requests in order.
pub fn answers<P: Predictor, G: Generator>(
    service: GrpcInference<P, G>,
    requests: Request<Streaming<ModelInferRequest>>,
) -> impl Stream<Item = Answer> + Send {
    let deadline = Deadline::of(requests.metadata());
    let requests = Some(requests.into_inner());
    let conversation = Conversation { service, deadline, requests, current: None };
    stream::unfold(conversation, |mut conversation| async {
        let answer = conversation.next().await?;
        Some((answer, conversation))
    })
}

struct Conversation<P, G> {
    service: GrpcInference<P, G>,
    /// When the client ends the stream, if it says so. A generation needs none: it ends with the stream.
    deadline: Option<Deadline>,
    /// None after the stream itself broke.
    requests: Option<Streaming<ModelInferRequest>>,
    current: Option<Generating>,
}

/// A request that is being answered piece by piece.
struct Generating {
    id: String,
    info: ModelInfo,
    asked: Asked,
    pieces: Pieces,
    /// Whether there is a tokenizer, and so text beside the tokens.
    text: bool,
}

impl<P: Predictor, G: Generator> Conversation<P, G> {
    async fn next(&mut self) -> Option<Answer> {
        loop {
            if let Some(current) = &mut self.current {
                if let Some(answer) = current.next().await {
                    return Some(Ok(answer));
                }
                self.current = None;
            }
            let request = match self.requests.as_mut()?.message().await {
                Ok(request) => request?,
                Err(status) => {
                    self.requests = None;
                    return Some(Err(status));
                }
            };
            let id = request.id.clone();
            if !self.service.text.generates() {
                return Some(Ok(once(&self.service, id, request, self.deadline).await));
            }
            match begin(&self.service, request).await {
                Ok(generating) => self.current = Some(generating),
                Err(error) => return Some(Ok(failed(id, error.to_string()))),
            }
        }
    }
}

/// The one answer of a model that does not generate.
async fn once<P: Predictor, G: Generator>(
    service: &GrpcInference<P, G>,
    id: String,
    request: ModelInferRequest,
    deadline: Option<Deadline>,
) -> ModelStreamInferResponse {
    match service.infer(request, deadline).await {
        Ok(mut response) => {
            response.parameters.extend([parameter(FINAL, ParameterChoice::BoolParam(true))]);
            succeeded(response)
        }
        Err(error) => failed(id, error.to_string()),
    }
}

/// Checks a request and begins to generate.
async fn begin<P: Predictor, G: Generator>(
    service: &GrpcInference<P, G>,
    mut request: ModelInferRequest,
) -> Result<Generating, InferError> {
    let (info, text) = (service.predictor.model(), &service.text);
    let id = std::mem::take(&mut request.id);
    check_id(&id)?;
    let mut asked = asked::parse(&info, request)?;
    let prompt = match asked.prompt.take() {
        Prompt::Text(words) => text.encode(words).await?,
        Prompt::Ids(ids) => ids,
    };
    if asked.wants(TEXT_OUTPUT, false) || !asked.stop.is_empty() {
        text.tokenizer()?;
    }
    let has_text = text.tokenizer().is_ok();
    let pieces = text.start(TextRequest {
        prompt,
        max_tokens: Some(asked.max_tokens),
        sampling: asked.sampling.clone(),
        stop: std::mem::take(&mut asked.stop),
    });
    Ok(Generating { id, info, pieces: pieces.await?, asked, text: has_text })
}

impl Generating {
    /// The next response; all pieces at once if the client does not want them one by one.
    async fn next(&mut self) -> Option<ModelStreamInferResponse> {
        let mut answer = Piece::default();
        loop {
            let piece = match self.pieces.next().await? {
                Ok(piece) => piece,
                Err(error) => return Some(failed(self.id.clone(), error.to_string())),
            };
            answer.text += &piece.text;
            answer.tokens.extend(piece.tokens);
            answer.finish = piece.finish;
            if self.asked.stream || answer.finish.is_some() {
                return Some(succeeded(self.response(answer)));
            }
        }
    }

    fn response(&self, piece: Piece) -> ModelInferResponse {
        let last = ParameterChoice::BoolParam(piece.finish.is_some());
        let mut parameters = HashMap::from([parameter(FINAL, last)]);
        parameters.extend(piece.finish.map(|finish| {
            parameter("finish_reason", ParameterChoice::StringParam(reason(finish).into()))
        }));
        let count = piece.tokens.len();
        let ids: Vec<i64> = piece.tokens.iter().map(|token| token.id).collect();
        let logprobs: Vec<f32> = piece.tokens.iter().map(|token| token.logprob).collect();
        let numbers = |tensor: HostTensor| (tensor.dtype().name(), tensor.into_data());
        let (int64, ids) = numbers(HostTensor::from_i64(vec![count], &ids));
        let (fp32, logprobs) = numbers(HostTensor::from_f32(vec![count], &logprobs));
        let all = [
            (TEXT_OUTPUT, "BYTES", 1, counted(&piece.text), self.text),
            (TOKEN_OUTPUT, int64, count, ids, true),
            (LOGPROB_OUTPUT, fp32, count, logprobs, true),
        ];
        let wanted = all.into_iter().filter(|(name, .., usual)| self.asked.wants(name, *usual));
        let (outputs, raw_output_contents) = wanted
            .map(|(name, datatype, elements, data, _)| {
                let shape = vec![elements as i64];
                let (name, datatype) = (name.to_string(), datatype.to_string());
                (InferOutputTensor { name, datatype, shape, ..Default::default() }, data)
            })
            .unzip();
        ModelInferResponse {
            model_name: self.info.name.clone(),
            model_version: self.info.version.clone(),
            id: self.id.clone(),
            parameters,
            outputs,
            raw_output_contents,
        }
    }
}

/// One BYTES element: its length, then its bytes.
fn counted(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), text.as_bytes()].concat().into()
}

fn succeeded(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn failed(id: String, error_message: String) -> ModelStreamInferResponse {
    let response = ModelInferResponse { id, ..Default::default() };
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
