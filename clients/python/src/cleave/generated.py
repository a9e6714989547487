"""Generated text, piece by piece or whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Piece:
    """Text as it comes: mostly of one token, of several where only they together are text."""

    text: str
    tokens: tuple[int, ...] = ()
    """Over gRPC: the ids of the tokens."""
    logprobs: tuple[float, ...] = ()
    """Over gRPC: the natural logarithm of each token's probability."""
    finish_reason: str | None = None
    """On the last piece: "stop" (a stop string, or the model's own end) or "length"."""


def joined(pieces: list[Piece]) -> Piece:
    """All of them as one."""
    return Piece(
        "".join(piece.text for piece in pieces),
        tuple(token for piece in pieces for token in piece.tokens),
        tuple(logprob for piece in pieces for logprob in piece.logprobs),
        next((piece.finish_reason for piece in reversed(pieces) if piece.finish_reason), None),
    )


class TextStream(Iterator[Piece]):
    """Pieces as the edge sends them. Closing it, or leaving its `with`, ends the generation on both nodes."""

    def __init__(self, pieces: Generator[Piece, None, None]) -> None:
        self._pieces = pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def read(self) -> Piece:
        """Waits for all that is left, as one piece."""
        return joined(list(self))

    def close(self) -> None:
        """Ends the generation."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTextStream(AsyncIterator[Piece]):
    """As [`TextStream`], for `async for` and `async with`."""

    def __init__(self, pieces: AsyncGenerator[Piece, None]) -> None:
        self._pieces = pieces

    async def __anext__(self) -> Piece:
        return await anext(self._pieces)

    async def read(self) -> Piece:
        """Waits for all that is left, as one piece."""
        return joined([piece async for piece in self])

    async def close(self) -> None:
        """Ends the generation."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
