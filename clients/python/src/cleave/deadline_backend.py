"""Connections that keep a deadline.

httpcore limits each read of a blocking socket: a peer that sends a byte now and then keeps every such limit, for
hours. Here each read and write has what is left of its call's time.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore

from .retry import Deadline

# A write may be several sends, each with the whole limit.
_WRITE_BYTES = 64 << 10

_in_force: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def within(deadline: Deadline) -> Iterator[None]:
    """What this thread reads and writes inside has this deadline."""
    token = _in_force.set(deadline)
    try:
        yield
    finally:
        _in_force.reset(token)


def _left(limit: float | None) -> float | None:
    deadline = _in_force.get()
    return limit if deadline is None else deadline.left()


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose reads and writes look at the deadline in force."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, _left(timeout), local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), _WRITE_BYTES):
            self._inner.write(buffer[at : at + _WRITE_BYTES], _left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, _left(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
