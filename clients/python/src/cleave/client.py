"""The client for scripts, notebooks and threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Self, TypeVar

from .answer import Answer
from .errors import CleaveError, DeadlineExceeded, Unavailable
from .generated import Piece, TextStream
from .metadata import ModelMetadata, ServerMetadata
from .opening import open_transport
from .request import ChatRequest, GenerateRequest, Sampling, infer_request, prompt, stops
from .retry import Deadline, Retry
from .tensors import Value
from .transport import address

T = TypeVar("T")

TIMEOUT = 30.0
STREAM_TIMEOUT = 600.0


class Client:
    """An edge and the model that it serves. May be shared by threads; `with` closes it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        model: str = "digits",
        *,
        timeout: float = TIMEOUT,
        stream_timeout: float = STREAM_TIMEOUT,
        retry: Retry | None = None,
        headers: Mapping[str, str] | None = None,
        ca: str | Path | None = None,
    ) -> None:
        """`url` is `http://` for REST and `grpc://` for gRPC (`https://`, `grpcs://` behind a proxy with TLS, whose
        authority is in the PEM file `ca`). `model` is the edge's `edge.model_name`. `timeout`, s, is the longest
        that a call may take with all its repetitions; `stream_timeout` the same for generated text. `headers` go
        with every call.
        """
        self.url, self.model_name = url, model
        self.timeout, self.stream_timeout = timeout, stream_timeout
        self.retry = retry or Retry()
        self._transport = open_transport(address(url), headers or {}, ca)
        self._model: ModelMetadata | None = None

    def live(self, *, timeout: float | None = None) -> bool:
        """Whether the edge answers at all."""
        deadline = self._deadline(timeout)
        try:
            return self._transport.live(deadline)
        except (Unavailable, DeadlineExceeded):
            return False

    def ready(self, *, timeout: float | None = None) -> bool:
        """Whether a request that is sent now would be tried; False also where no edge answers."""
        deadline = self._deadline(timeout)
        try:
            return self._transport.ready(self.model_name, deadline)
        except (Unavailable, DeadlineExceeded):
            return False

    def wait_ready(self, timeout: float = 60.0) -> Self:
        """Waits until the edge is ready; DeadlineExceeded says why it is not."""
        deadline, why = Deadline(timeout), "it is not ready"
        while deadline.allows(0):
            try:
                if self._transport.ready(self.model_name, deadline):
                    return self
            except Unavailable as error:
                why = error.message
            except DeadlineExceeded:
                break
            time.sleep(0.1)
        raise DeadlineExceeded(f"{self.url} is not ready after {timeout:g} s: {why}")

    def server(self, *, timeout: float | None = None) -> ServerMetadata:
        """What answers there."""
        return self._repeated(self._transport.server, self._deadline(timeout))

    def model(self, *, timeout: float | None = None) -> ModelMetadata:
        """What the model takes and gives, asked anew each time."""
        return self._repeated(lambda d: self._transport.model(self.model_name, d), self._deadline(timeout))

    def infer(
        self,
        inputs: Value | Mapping[str, Value],
        *,
        outputs: Sequence[str] = (),
        exits: bool = True,
        version: str = "",
        id: str = "",
        timeout: float | None = None,
    ) -> Answer:
        """Runs the model on one batch: arrays by name, or the one input by itself.

        `outputs` are those wanted, all if none is named. `exits=False` keeps early exits from answering. `version`
        has the edge refuse when other weights are deployed. Inference changes nothing, so a call that was lost is
        sent again (`retry`).
        """
        deadline = self._deadline(timeout)
        # The names and the dtypes of a model's inputs do not change while it is served.
        if self._model is None:
            self._model = self._repeated(lambda d: self._transport.model(self.model_name, d), deadline)
        request = infer_request(self._model, inputs, version=version, outputs=outputs, exits=exits, id=id)
        return self._repeated(lambda d: self._transport.infer(request, d), deadline)

    def generate(
        self,
        text: str | Sequence[int],
        *,
        max_tokens: int = 16,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        timeout: float | None = None,
    ) -> TextStream:
        """Goes on with a text, or with token ids; pieces come as they are generated.

        For models that generate. `temperature=0` takes the likeliest token each time.
        """
        sampling = Sampling(max_tokens, temperature, top_k, top_p, seed, stops(stop))
        return self._streamed(GenerateRequest(self.model_name, prompt(text), sampling), timeout)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        timeout: float | None = None,
    ) -> TextStream:
        """Answers messages, each `{"role": ..., "content": ...}`, by the model's chat template. REST only."""
        sampling = Sampling(max_tokens, temperature, top_k, top_p, seed, stops(stop))
        return self._streamed(ChatRequest(self.model_name, tuple(messages), sampling), timeout)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r}, model={self.model_name!r})"

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self.timeout if timeout is None else timeout)

    def _streamed(self, request: GenerateRequest | ChatRequest, timeout: float | None) -> TextStream:
        return TextStream(self._pieces(request, Deadline(self.stream_timeout if timeout is None else timeout)))

    def _pieces(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> Generator[Piece, None, None]:
        attempt = 0
        while True:
            attempt += 1
            begun = False
            try:
                with closing(self._transport.generate(request, deadline)) as pieces:
                    for piece in pieces:
                        begun = True
                        yield piece
                return
            except CleaveError as error:
                pause = None if begun else self.retry.pause(attempt, error, idempotent=False)
                if pause is None or not deadline.allows(pause):
                    raise
            time.sleep(pause)

    def _repeated(self, call: Callable[[Deadline], T], deadline: Deadline) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return call(deadline)
            except CleaveError as error:
                pause = self.retry.pause(attempt, error, idempotent=True)
                if pause is None or not deadline.allows(pause):
                    raise
            time.sleep(pause)
