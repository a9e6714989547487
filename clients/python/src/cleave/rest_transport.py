"""REST over httpcore, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import httpcore

from . import rest
from .answer import Answer
from .deadline_backend import DeadlineBackend, within
from .errors import CleaveError, InvalidRequest, ServerError, Unavailable
from .generated import Piece
from .metadata import ModelMetadata, ServerMetadata
from .request import ChatRequest, GenerateRequest, InferRequest
from .retry import Deadline
from .transport import Address, AsyncTransport, Transport

T = TypeVar("T")

_FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


def _failure(error: Exception, url: str, deadline: Deadline) -> CleaveError:
    if isinstance(error, httpcore.TimeoutException):
        return deadline.passed()
    if isinstance(error, httpcore.LocalProtocolError):
        return InvalidRequest(f"the request is no HTTP: {error}")
    sent = not isinstance(error, httpcore.ConnectError)
    return Unavailable(f"the edge at {url} does not answer: {error or type(error).__name__}", sent=sent)


def _request(call: rest.Call[T], url: str, headers: dict[str, str]) -> httpcore.Request:
    own = {"Host": urlsplit(url).netloc, "Content-Length": str(len(call.body))}
    return httpcore.Request(
        call.method, url + call.path, headers=list((own | headers | call.headers).items()), content=call.body
    )


def _chat_or_completion(request: GenerateRequest | ChatRequest) -> rest.Call[None]:
    return rest.chat(request) if isinstance(request, ChatRequest) else rest.generate(request)


def _reply(response: httpcore.Response, body: bytes, begin: float = 0.0) -> rest.Reply:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return rest.Reply(response.status, headers, body, (time.perf_counter() - begin) * 1e3)


def _is_success(response: httpcore.Response) -> bool:
    return 200 <= response.status <= 299


def _broken_off() -> ServerError:
    return ServerError("the stream ended before its last event")


class RestTransport(Transport):
    """Blocking; one connection for each call that is under way."""

    def __init__(self, address: Address, headers: Mapping[str, str], context: ssl.SSLContext | None) -> None:
        self._url, self._headers = address.url, dict(headers)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, max_connections=None, keepalive_expiry=30.0, network_backend=DeadlineBackend()
        )

    def live(self, deadline: Deadline) -> bool:
        return self._call(rest.live(), deadline)

    def ready(self, model: str, deadline: Deadline) -> bool:
        return self._call(rest.ready(model), deadline)

    def server(self, deadline: Deadline) -> ServerMetadata:
        return self._call(rest.server(), deadline)

    def model(self, name: str, deadline: Deadline) -> ModelMetadata:
        return self._call(rest.model(name), deadline)

    def infer(self, request: InferRequest, deadline: Deadline) -> Answer:
        return self._call(rest.infer(request), deadline)

    def generate(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> Generator[Piece, None, None]:
        with self._sent(_chat_or_completion(request), deadline) as response:
            if not _is_success(response):
                with within(deadline):
                    rest.check(_reply(response, response.read()))
            events, parts = rest.Events(), iter(response.iter_stream())
            while not events.ended:
                # Only while it reads: between two pieces the caller's own code runs.
                with within(deadline):
                    part = next(parts, None)
                if part is None:
                    raise _broken_off()
                yield from events.read(part)

    def _call(self, call: rest.Call[T], deadline: Deadline) -> T:
        begin = time.perf_counter()
        with self._sent(call, deadline) as response, within(deadline):
            body = response.read()
        return rest.read(call, _reply(response, body, begin))

    @contextmanager
    def _sent(self, call: rest.Call[T], deadline: Deadline) -> Iterator[httpcore.Response]:
        try:
            request = _request(call, self._url, self._headers)
            with within(deadline):
                response = self._pool.handle_request(request)
            try:
                yield response
            finally:
                response.close()
        except _FAILURES as error:
            raise _failure(error, self._url, deadline) from error

    def close(self) -> None:
        self._pool.close()


class AsyncRestTransport(AsyncTransport):
    """The same for asyncio."""

    def __init__(self, address: Address, headers: Mapping[str, str], context: ssl.SSLContext | None) -> None:
        self._url, self._headers = address.url, dict(headers)
        self._pool = httpcore.AsyncConnectionPool(ssl_context=context, max_connections=None, keepalive_expiry=30.0)

    async def live(self, deadline: Deadline) -> bool:
        return await self._call(rest.live(), deadline)

    async def ready(self, model: str, deadline: Deadline) -> bool:
        return await self._call(rest.ready(model), deadline)

    async def server(self, deadline: Deadline) -> ServerMetadata:
        return await self._call(rest.server(), deadline)

    async def model(self, name: str, deadline: Deadline) -> ModelMetadata:
        return await self._call(rest.model(name), deadline)

    async def infer(self, request: InferRequest, deadline: Deadline) -> Answer:
        return await self._call(rest.infer(request), deadline)

    async def generate(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> AsyncGenerator[Piece, None]:
        async with self._sent(_chat_or_completion(request), deadline) as response:
            if not _is_success(response):
                rest.check(_reply(response, await _in_time(response.aread(), deadline)))
            events = rest.Events()
            async with aclosing(_parts(response)) as parts:
                while not events.ended:
                    part = await _in_time(anext(parts, None), deadline)
                    if part is None:
                        raise _broken_off()
                    for piece in events.read(part):
                        yield piece

    async def _call(self, call: rest.Call[T], deadline: Deadline) -> T:
        begin = time.perf_counter()
        async with self._sent(call, deadline) as response:
            body = await _in_time(response.aread(), deadline)
        return rest.read(call, _reply(response, body, begin))

    @asynccontextmanager
    async def _sent(self, call: rest.Call[T], deadline: Deadline) -> AsyncIterator[httpcore.Response]:
        try:
            request = _request(call, self._url, self._headers)
            response = await _in_time(self._pool.handle_async_request(request), deadline)
            try:
                yield response
            finally:
                await response.aclose()
        except _FAILURES as error:
            raise _failure(error, self._url, deadline) from error

    async def close(self) -> None:
        await self._pool.aclose()


async def _parts(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    async for part in response.aiter_stream():
        yield part


async def _in_time(work: Awaitable[T], deadline: Deadline) -> T:
    """What is awaited, if it comes before the deadline."""
    try:
        async with asyncio.timeout(deadline.at_most()):
            return await work
    except TimeoutError:
        raise deadline.passed() from None
