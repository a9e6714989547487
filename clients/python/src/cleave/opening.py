"""What both clients are made from, and how a transport is opened."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from .errors import InvalidRequest, Unsupported
from .transport import Address, AsyncTransport, Transport


def _grpc() -> ModuleType:
    try:
        from . import grpc_transport
    except ImportError as error:
        raise Unsupported(
            f"gRPC needs more packages ({error.name} is missing): pip install cleave-client[grpc]"
        ) from error
    return grpc_transport


def _authority(ca: str | Path | None) -> bytes | None:
    try:
        return None if ca is None else Path(ca).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"ca: {error}") from error


def _context(ca: str | Path | None) -> ssl.SSLContext | None:
    try:
        return None if ca is None else ssl.create_default_context(cafile=str(ca))
    except OSError as error:
        raise InvalidRequest(f"ca: {ca}: {error}") from error


def open_transport(address: Address, headers: Mapping[str, str], ca: str | Path | None) -> Transport:
    """The transport of an address, for threads."""
    if address.transport == "grpc":
        transport: Transport = _grpc().GrpcTransport(address, headers, _authority(ca))
        return transport
    from .rest_transport import RestTransport

    return RestTransport(address, headers, _context(ca))


def open_async_transport(address: Address, headers: Mapping[str, str], ca: str | Path | None) -> AsyncTransport:
    """The transport of an address, for asyncio."""
    if address.transport == "grpc":
        transport: AsyncTransport = _grpc().AsyncGrpcTransport(address, headers, _authority(ca))
        return transport
    from .rest_transport import AsyncRestTransport

    return AsyncRestTransport(address, headers, _context(ca))
