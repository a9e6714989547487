"""gRPC over grpcio, for threads and for asyncio."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from . import messages
from ._oip import messages_pb2 as oip
from .answer import Answer
from .errors import CleaveError, ServerError, from_grpc
from .generated import Piece
from .metadata import ModelMetadata, ServerMetadata
from .request import ChatRequest, GenerateRequest, InferRequest
from .retry import Deadline
from .transport import Address, AsyncTransport, Transport

Reply = TypeVar("Reply", bound=Message)
T = TypeVar("T")

# What is too large the edge says, by its own limits.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Retries are this package's, within the deadline.
    ("grpc.enable_retries", 0),
    # After a failed attempt grpcio waits up to two minutes before it tries the address again.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def _failure(error: grpc.RpcError, target: str, deadline: Deadline) -> CleaveError:
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return ServerError(f"the call to {target} failed: {error}")
    code, details = error.code(), error.details() or ""
    # The edge gives up at this deadline as well; whichever is first, the call took too long.
    if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED) and not deadline.allows(0):
        return deadline.passed()
    return from_grpc(code.name, " ".join(details.split()) or f"{target} answered {code.name}")


def _metadata(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in headers.items())


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()


class GrpcTransport(Transport):
    """Blocking; all calls share one connection."""

    def __init__(self, address: Address, headers: Mapping[str, str], authority: bytes | None) -> None:
        self._target, self._headers = address.url, _metadata(headers)
        if address.secure:
            credentials = grpc.ssl_channel_credentials(authority)
            self._channel = grpc.secure_channel(address.url, credentials, _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address.url, _OPTIONS)

    def live(self, deadline: Deadline) -> bool:
        return self._call(messages.live(), deadline)

    def ready(self, model: str, deadline: Deadline) -> bool:
        return self._call(messages.ready(model), deadline)

    def server(self, deadline: Deadline) -> ServerMetadata:
        return self._call(messages.server(), deadline)

    def model(self, name: str, deadline: Deadline) -> ModelMetadata:
        return self._call(messages.model(name), deadline)

    def infer(self, request: InferRequest, deadline: Deadline) -> Answer:
        return self._call(messages.infer(request), deadline)

    def generate(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> Generator[Piece, None, None]:
        message = messages.generate(request)
        open_stream = self._channel.stream_stream(
            messages.STREAM,
            request_serializer=_serialise,
            response_deserializer=oip.ModelStreamInferResponse.FromString,
        )
        call = open_stream(iter([message]), timeout=deadline.left(), metadata=self._headers)
        try:
            for reply in call:
                piece, last = messages.piece(reply)
                yield piece
                if last:
                    return
            raise ServerError("the stream ended before its last response")
        except grpc.RpcError as error:
            raise _failure(error, self._target, deadline) from error
        finally:
            call.cancel()

    def _call(self, call: messages.Call[Reply, T], deadline: Deadline) -> T:
        ask = self._channel.unary_unary(
            call.path, request_serializer=_serialise, response_deserializer=call.reply.FromString
        )
        begin = time.perf_counter()
        try:
            reply = ask(call.request, timeout=deadline.left(), metadata=self._headers)
        except grpc.RpcError as error:
            raise _failure(error, self._target, deadline) from error
        return call.read(reply, (time.perf_counter() - begin) * 1e3)

    def close(self) -> None:
        self._channel.close()


class AsyncGrpcTransport(AsyncTransport):
    """The same for asyncio."""

    def __init__(self, address: Address, headers: Mapping[str, str], authority: bytes | None) -> None:
        self._target, self._headers = address.url, _metadata(headers)
        if address.secure:
            credentials = grpc.ssl_channel_credentials(authority)
            self._channel = grpc.aio.secure_channel(address.url, credentials, _OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(address.url, _OPTIONS)

    async def live(self, deadline: Deadline) -> bool:
        return await self._call(messages.live(), deadline)

    async def ready(self, model: str, deadline: Deadline) -> bool:
        return await self._call(messages.ready(model), deadline)

    async def server(self, deadline: Deadline) -> ServerMetadata:
        return await self._call(messages.server(), deadline)

    async def model(self, name: str, deadline: Deadline) -> ModelMetadata:
        return await self._call(messages.model(name), deadline)

    async def infer(self, request: InferRequest, deadline: Deadline) -> Answer:
        return await self._call(messages.infer(request), deadline)

    async def generate(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> AsyncGenerator[Piece, None]:
        message = messages.generate(request)
        open_stream = self._channel.stream_stream(
            messages.STREAM,
            request_serializer=_serialise,
            response_deserializer=oip.ModelStreamInferResponse.FromString,
        )
        call = open_stream(iter([message]), timeout=deadline.left(), metadata=self._headers)
        try:
            async for reply in call:
                piece, last = messages.piece(reply)
                yield piece
                if last:
                    return
            raise ServerError("the stream ended before its last response")
        except grpc.aio.AioRpcError as error:
            raise _failure(error, self._target, deadline) from error
        finally:
            call.cancel()

    async def _call(self, call: messages.Call[Reply, T], deadline: Deadline) -> T:
        ask = self._channel.unary_unary(
            call.path, request_serializer=_serialise, response_deserializer=call.reply.FromString
        )
        begin = time.perf_counter()
        try:
            reply = await ask(call.request, timeout=deadline.left(), metadata=self._headers)
        except grpc.aio.AioRpcError as error:
            raise _failure(error, self._target, deadline) from error
        return call.read(reply, (time.perf_counter() - begin) * 1e3)

    async def close(self) -> None:
        await self._channel.close()
