"""The Open Inference Protocol and OpenAI's completions as HTTP: what is sent and how it is read, without I/O.

Tensors travel as raw bytes behind the JSON (the protocol's `binary_tensor_data` extension), never as text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from .answer import Answer, collected, described
from .errors import CleaveError, ServerError, from_http, from_openai
from .generated import Piece
from .metadata import ModelMetadata, ServerMetadata
from .request import ChatRequest, GenerateRequest, InferRequest, Sampling
from .tensors import Array, TensorSpec, decode

T = TypeVar("T")

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its reply is read."""

    method: str
    path: str
    read: Callable[[Reply], T]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def live() -> Call[bool]:
    return Call("GET", "/v2/health/live", _is_true("live"))


def ready(model: str) -> Call[bool]:
    return Call("GET", f"/v2/models/{quote(model, safe='')}/ready", _is_true("ready"))


def server() -> Call[ServerMetadata]:
    return Call("GET", "/v2", _read_server)


def model(name: str) -> Call[ModelMetadata]:
    return Call("GET", f"/v2/models/{quote(name, safe='')}", _read_model)


def infer(request: InferRequest) -> Call[Answer]:
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
            "parameters": {"binary_data_size": len(tensor.data)},
        }
        for tensor in request.tensors
    ]
    document: dict[str, object] = {
        "inputs": inputs,
        "parameters": {"binary_data_output": True, "exits": request.exits},
    }
    if request.id:
        document["id"] = request.id
    if request.outputs:
        document["outputs"] = [{"name": name} for name in request.outputs]
    head = json.dumps(document).encode()
    path = f"/v2/models/{quote(request.model, safe='')}"
    path += f"/versions/{quote(request.version, safe='')}/infer" if request.version else "/infer"
    headers = {HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return Call("POST", path, _read_answer, headers, b"".join([head, *(tensor.data for tensor in request.tensors)]))


def generate(request: GenerateRequest) -> Call[None]:
    document: dict[str, object] = {"model": request.model, "prompt": request.prompt}
    return _stream("/v1/completions", document, request.sampling)


def chat(request: ChatRequest) -> Call[None]:
    document: dict[str, object] = {"model": request.model, "messages": [dict(message) for message in request.messages]}
    return _stream("/v1/chat/completions", document, request.sampling)


def _stream(path: str, document: dict[str, object], sampling: Sampling) -> Call[None]:
    document |= {
        "stream": True,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
    }
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    return Call("POST", path, lambda _: None, headers, json.dumps(document).encode())


def read(call: Call[T], reply: Reply) -> T:
    """What the reply says, or the failure that it is."""
    check(reply)
    try:
        return call.read(reply)
    except CleaveError:
        raise
    # Whatever does not look like the protocol came from something else that listens there.
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(f"the answer to {call.method} {call.path} is not the protocol's: {error!r}") from error


def check(reply: Reply) -> None:
    """Raises if the reply is a failure."""
    if reply.status < 200 or reply.status > 299:
        raise from_http(reply.status, _message(reply))


def _message(reply: Reply) -> str:
    """The text of a failure, in the protocol's shape or in OpenAI's."""
    try:
        error = json.loads(reply.body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        text = reply.body[:200].decode(errors="replace").strip()
        return " ".join(f"HTTP {reply.status} {text}".split())


def _is_true(name: str) -> Callable[[Reply], bool]:
    def read(reply: Reply) -> bool:
        return json.loads(reply.body)[name] is True

    return read


def _read_server(reply: Reply) -> ServerMetadata:
    found = json.loads(reply.body)
    return ServerMetadata(found["name"], found["version"], tuple(found["extensions"]))


def _read_model(reply: Reply) -> ModelMetadata:
    found = json.loads(reply.body)

    def specs(tensors: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t["name"], t["datatype"], tuple(t["shape"])) for t in tensors)

    return ModelMetadata(
        found["name"], tuple(found["versions"]), found["platform"], specs(found["inputs"]), specs(found["outputs"])
    )


def _read_answer(reply: Reply) -> Answer:
    length = reply.headers.get(HEADER_LENGTH.lower())
    end = len(reply.body) if length is None else int(length)
    found = json.loads(reply.body[:end])
    rest = memoryview(reply.body)[end:]
    pairs: list[tuple[str, Array]] = []
    for output in found["outputs"]:
        size = int(output["parameters"]["binary_data_size"])
        pairs.append((output["name"], decode(output["name"], output["datatype"], output["shape"], rest[:size])))
        rest = rest[size:]
    timing, exits = described(found["parameters"])
    return Answer(
        collected(pairs),
        timing,
        found["model_name"],
        found["model_version"],
        found.get("id", ""),
        exits,
        reply.elapsed_ms,
    )


class Events:
    """The pieces in a stream of events, which comes in parts that may end anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def read(self, part: bytes) -> Iterator[Piece]:
        """What this part completes."""
        # Only line feeds end a line: text may have any of the other characters at which Python splits.
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            if self.ended or not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                self.ended = True
            elif piece := _piece(data):
                yield piece


def _piece(data: bytes) -> Piece | None:
    """What an event adds; None for one without text."""
    try:
        event = json.loads(data)
        if "error" in event:
            raise from_openai(event["error"])
        choice = event["choices"][0]
        # Completions have the text itself, chats what is new in the message.
        text = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        reason = choice["finish_reason"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, CleaveError):
            raise
        raise ServerError(f"an event of the stream is not OpenAI's: {error!r}") from error
    return Piece(str(text), finish_reason=reason) if text or reason else None
