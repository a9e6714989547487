"""The Open Inference Protocol as gRPC messages: how they are made and read, without I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ._oip import messages_pb2 as oip
from .answer import Answer, collected, described
from .errors import GenerationFailed, InvalidRequest, ServerError, Unsupported
from .generated import Piece
from .metadata import ModelMetadata, ServerMetadata
from .request import ChatRequest, GenerateRequest, InferRequest
from .tensors import Array, TensorSpec, decode

Reply = TypeVar("Reply", bound=Message)
T = TypeVar("T")

SERVICE = "/inference.GRPCInferenceService"
STREAM = f"{SERVICE}/ModelStreamInfer"


@dataclass(frozen=True)
class Call(Generic[Reply, T]):
    """One unary call, and how its reply is read; `read` also gets the ms that the call took."""

    name: str
    request: Message
    reply: type[Reply]
    read: Callable[[Reply, float], T]

    @property
    def path(self) -> str:
        return f"{SERVICE}/{self.name}"


def live() -> Call[oip.ServerLiveResponse, bool]:
    return Call("ServerLive", oip.ServerLiveRequest(), oip.ServerLiveResponse, lambda reply, _: reply.live)


def ready(model: str) -> Call[oip.ModelReadyResponse, bool]:
    request = oip.ModelReadyRequest(name=model)
    return Call("ModelReady", request, oip.ModelReadyResponse, lambda reply, _: reply.ready)


def server() -> Call[oip.ServerMetadataResponse, ServerMetadata]:
    def read(reply: oip.ServerMetadataResponse, _: float) -> ServerMetadata:
        return ServerMetadata(reply.name, reply.version, tuple(reply.extensions))

    return Call("ServerMetadata", oip.ServerMetadataRequest(), oip.ServerMetadataResponse, read)


def model(name: str) -> Call[oip.ModelMetadataResponse, ModelMetadata]:
    def read(reply: oip.ModelMetadataResponse, _: float) -> ModelMetadata:
        inputs = tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in reply.inputs)
        outputs = tuple(TensorSpec(t.name, t.datatype, tuple(t.shape)) for t in reply.outputs)
        return ModelMetadata(reply.name, tuple(reply.versions), reply.platform, inputs, outputs)

    return Call("ModelMetadata", oip.ModelMetadataRequest(name=name), oip.ModelMetadataResponse, read)


def infer(request: InferRequest) -> Call[oip.ModelInferResponse, Answer]:
    inputs = [
        oip.ModelInferRequest.InferInputTensor(name=t.name, datatype=t.datatype, shape=t.shape) for t in request.tensors
    ]
    message = oip.ModelInferRequest(
        model_name=request.model,
        model_version=request.version,
        id=request.id,
        parameters={"exits": oip.InferParameter(bool_param=request.exits)},
        inputs=inputs,
        outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in request.outputs],
        raw_input_contents=[t.data for t in request.tensors],
    )
    return Call("ModelInfer", message, oip.ModelInferResponse, _read_answer)


def _outputs(reply: oip.ModelInferResponse) -> list[tuple[str, Array]]:
    if len(reply.outputs) != len(reply.raw_output_contents):
        count, raw = len(reply.outputs), len(reply.raw_output_contents)
        raise ServerError(f"the answer has {count} outputs and {raw} raw contents")
    pairs = zip(reply.outputs, reply.raw_output_contents, strict=True)
    return [(output.name, decode(output.name, output.datatype, output.shape, raw)) for output, raw in pairs]


def _parameters(reply: oip.ModelInferResponse) -> dict[str, object]:
    chosen = {name: parameter.WhichOneof("parameter_choice") for name, parameter in reply.parameters.items()}
    return {name: getattr(reply.parameters[name], field) for name, field in chosen.items() if field}


def _read_answer(reply: oip.ModelInferResponse, elapsed_ms: float) -> Answer:
    timing, exits = described(_parameters(reply))
    return Answer(
        collected(_outputs(reply)), timing, reply.model_name, reply.model_version, reply.id, exits, elapsed_ms
    )


def generate(request: GenerateRequest | ChatRequest) -> oip.ModelInferRequest:
    """The one request of a stream."""
    if isinstance(request, ChatRequest):
        raise Unsupported("chats have no gRPC call; use the edge's http:// address")
    if isinstance(request.prompt, str):
        text = request.prompt.encode()
        name, datatype, shape, data = "text_input", "BYTES", [1], len(text).to_bytes(4, "little") + text
    else:
        name, datatype, shape = "input_ids", "INT64", [1, len(request.prompt)]
        try:
            data = b"".join(token.to_bytes(8, "little", signed=True) for token in request.prompt)
        except OverflowError:
            raise InvalidRequest("a token id of the prompt has more than 64 bits") from None
    return oip.ModelInferRequest(
        model_name=request.model,
        inputs=[oip.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)],
        raw_input_contents=[data],
        parameters=_sampling(request),
    )


def _sampling(request: GenerateRequest) -> Mapping[str, oip.InferParameter]:
    asked = request.sampling
    parameters = {
        "max_tokens": oip.InferParameter(int64_param=asked.max_tokens),
        "temperature": oip.InferParameter(double_param=asked.temperature),
        "top_k": oip.InferParameter(int64_param=asked.top_k),
        "top_p": oip.InferParameter(double_param=asked.top_p),
    }
    if asked.seed is not None:
        parameters["seed"] = oip.InferParameter(int64_param=asked.seed)
    if asked.stop:
        # Several in one parameter, which is a text at most.
        parameters["stop"] = oip.InferParameter(string_param=json.dumps(asked.stop))
    return parameters


def piece(reply: oip.ModelStreamInferResponse) -> tuple[Piece, bool]:
    """What a response of the stream adds, and whether it is the last one."""
    if reply.error_message:
        raise GenerationFailed(reply.error_message)
    answer = reply.infer_response
    parameters, outputs = _parameters(answer), dict(_outputs(answer))
    text = b"".join(outputs["text_output"].tolist()).decode() if "text_output" in outputs else ""
    tokens = tuple(int(token) for token in outputs.get("token", ()))
    logprobs = tuple(float(logprob) for logprob in outputs.get("logprob", ()))
    reason = parameters.get("finish_reason")
    found = Piece(text, tokens, logprobs, str(reason) if reason else None)
    return found, parameters.get("triton_final_response") is True
