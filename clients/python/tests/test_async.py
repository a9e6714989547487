"""The same over asyncio."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from nodes import Nodes, free_ports
from numpy.typing import NDArray
from test_failures import MODEL, http, listening

import cleave

Images = NDArray[np.float32]


@pytest.fixture(params=["rest", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_many_at_once_answer_as_one(digits: Nodes, transport: str, images: Images) -> None:
    with cleave.Client(digits.rest) as blocking:
        expected = blocking.infer(images)
        model, server = blocking.model(), blocking.server()
    async with cleave.AsyncClient(getattr(digits, transport)) as edge:
        await edge.wait_ready(5)
        assert await edge.live() is True
        assert await edge.ready() is True
        assert await edge.model() == model
        assert await edge.server() == server
        answers = await asyncio.gather(*(edge.infer(images, id=str(i)) for i in range(20)))
    assert [answer.id for answer in answers] == [str(i) for i in range(20)]
    for answer in answers:
        np.testing.assert_array_equal(answer["logits"], expected["logits"])
        assert answer.timing.split_point == 2


async def test_text_as_it_comes(language: Nodes, transport: str) -> None:
    with cleave.Client(language.rest, "small") as blocking:
        expected = blocking.generate("the quick", max_tokens=20).read().text
    async with cleave.AsyncClient(getattr(language, transport), "small") as speaker:
        async with speaker.generate("the quick", max_tokens=20) as stream:
            text = "".join([piece.text async for piece in stream])
        assert text == expected
        # The edge has room for one session, which this gives back.
        async with speaker.generate("the quick", max_tokens=200) as stream:
            assert (await anext(stream)).finish_reason is None
        for _ in range(100):
            try:
                assert (await speaker.generate("the quick", max_tokens=20).read()).text == expected
                break
            except (cleave.Busy, cleave.GenerationFailed):
                continue
        else:
            pytest.fail("the session of a closed stream is still there")


async def test_failures_have_their_kind(digits: Nodes, transport: str, images: Images) -> None:
    async with cleave.AsyncClient(getattr(digits, transport)) as edge:
        with pytest.raises(cleave.InvalidRequest, match="shape"):
            await edge.infer(images[:, :, :4])
        with pytest.raises(cleave.DeadlineExceeded):
            await edge.infer(images, timeout=1e-5)
        with pytest.raises((cleave.InvalidRequest, cleave.GenerationFailed)):
            await edge.generate("x").read()
    async with cleave.AsyncClient(getattr(digits, transport), "boats") as edge:
        with pytest.raises(cleave.NotFound):
            await edge.model()
    (port,) = free_ports(1)
    scheme = "http" if transport == "rest" else "grpc"
    async with cleave.AsyncClient(f"{scheme}://127.0.0.1:{port}") as edge:
        assert await edge.live() is False
        with pytest.raises(cleave.Unavailable):
            await edge.infer(images)


async def test_deadlines_and_repetitions() -> None:
    with listening(http(MODEL), pause=0.1) as peer:
        async with cleave.AsyncClient(peer.url, timeout=0.5) as edge:
            begin = time.monotonic()
            with pytest.raises(cleave.DeadlineExceeded):
                await edge.model()
            assert time.monotonic() - begin < 1.5
    with listening(b"", b"", http(MODEL)) as peer:
        async with cleave.AsyncClient(peer.url) as edge:
            assert (await edge.model()).name == "digits"
        assert peer.seen == 3
    with listening(b"") as peer:
        async with cleave.AsyncClient(peer.url) as edge:
            with pytest.raises(cleave.Unavailable):
                await edge.generate("x").read()
        assert peer.seen == 1
    begun = b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n'
    with listening(http(begun)) as peer:
        async with cleave.AsyncClient(peer.url) as edge:
            stream = edge.generate("x")
            assert (await anext(stream)).text == "a"
            with pytest.raises(cleave.ServerError, match="ended before"):
                await anext(stream)
