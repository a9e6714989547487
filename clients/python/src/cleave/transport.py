"""The seam between the clients and the two transports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from .answer import Answer
from .errors import InvalidRequest
from .generated import Piece
from .metadata import ModelMetadata, ServerMetadata
from .request import ChatRequest, GenerateRequest, InferRequest
from .retry import Deadline


@dataclass(frozen=True)
class Address:
    """Where an edge is, and how it is spoken to."""

    transport: Literal["rest", "grpc"]
    secure: bool
    url: str
    """REST: the beginning of all URLs. gRPC: `host:port`."""


def address(url: str) -> Address:
    """`http://HOST:PORT`, `https://`, `grpc://`, `grpcs://`; without a scheme: `http`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidRequest(f"the address {url!r}: {error}") from None
    if not host or parts.query or parts.fragment:
        raise InvalidRequest(f"the address {url!r} is no http://HOST:PORT or grpc://HOST:PORT")
    if "@" in parts.netloc:
        raise InvalidRequest("the address has a user's name in it; send credentials with `headers`")
    match parts.scheme:
        case "http" | "https":
            return Address("rest", parts.scheme == "https", f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}")
        case "grpc" | "grpcs":
            shown = f"[{host}]" if ":" in host else host
            return Address("grpc", parts.scheme == "grpcs", f"{shown}:{port or 8001}")
        case other:
            raise InvalidRequest(f"the address {url!r} has the scheme {other!r}; use http, https, grpc or grpcs")


class Transport(ABC):
    """One attempt of each call."""

    @abstractmethod
    def live(self, deadline: Deadline) -> bool: ...

    @abstractmethod
    def ready(self, model: str, deadline: Deadline) -> bool: ...

    @abstractmethod
    def server(self, deadline: Deadline) -> ServerMetadata: ...

    @abstractmethod
    def model(self, name: str, deadline: Deadline) -> ModelMetadata: ...

    @abstractmethod
    def infer(self, request: InferRequest, deadline: Deadline) -> Answer: ...

    @abstractmethod
    def generate(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> Generator[Piece, None, None]: ...

    @abstractmethod
    def close(self) -> None: ...


class AsyncTransport(ABC):
    """The same for asyncio."""

    @abstractmethod
    async def live(self, deadline: Deadline) -> bool: ...

    @abstractmethod
    async def ready(self, model: str, deadline: Deadline) -> bool: ...

    @abstractmethod
    async def server(self, deadline: Deadline) -> ServerMetadata: ...

    @abstractmethod
    async def model(self, name: str, deadline: Deadline) -> ModelMetadata: ...

    @abstractmethod
    async def infer(self, request: InferRequest, deadline: Deadline) -> Answer: ...

    @abstractmethod
    def generate(self, request: GenerateRequest | ChatRequest, deadline: Deadline) -> AsyncGenerator[Piece, None]: ...

    @abstractmethod
    async def close(self) -> None: ...
