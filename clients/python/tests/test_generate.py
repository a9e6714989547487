"""Text from a small language model with random weights, cut between its blocks."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import tokenizers
from nodes import Nodes

import cleave

PROMPT = "the quick brown fox"


def test_whole_and_in_pieces_over_both_transports(language: Nodes) -> None:
    texts = []
    for url in (language.rest, language.grpc):
        with cleave.Client(url, "small") as speaker:
            pieces = list(speaker.generate(PROMPT, max_tokens=20))
            assert len(pieces) > 5
            assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
            assert pieces[-1].finish_reason == "length"
            whole = speaker.generate(PROMPT, max_tokens=20).read()
            assert whole.text == "".join(piece.text for piece in pieces)
            texts.append(whole.text)
    assert texts[0] == texts[1]


def test_token_ids_are_those_of_the_tokenizer(language: Nodes) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(language.folder / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    with cleave.Client(language.grpc, "small") as speaker:
        told = speaker.generate(PROMPT, max_tokens=12).read()
        same = speaker.generate(ids, max_tokens=12).read()
    assert told == same
    assert len(same.tokens) == len(same.logprobs) == 12
    assert all(logprob <= 0 for logprob in same.logprobs)
    assert tokenizer.decode(list(same.tokens), skip_special_tokens=False).startswith(same.text[:-1])


def test_a_seed_repeats_and_a_stop_ends(speaker: cleave.Client) -> None:
    def drawn(seed: int) -> str:
        return speaker.generate(PROMPT, max_tokens=24, temperature=1.5, top_k=200, top_p=0.99, seed=seed).read().text

    first = drawn(1)
    assert first == drawn(1)
    assert first != drawn(2)
    stop = first[4:6]
    cut = speaker.generate(
        PROMPT, max_tokens=24, temperature=1.5, top_k=200, top_p=0.99, seed=1, stop=[stop, "never there"]
    ).read()
    assert cut.text == first[: first.index(stop)]
    assert cut.finish_reason == "stop"


def test_closing_a_stream_frees_its_session(speaker: cleave.Client) -> None:
    def begin() -> str | None:
        with speaker.generate(PROMPT, max_tokens=200) as stream:
            return next(stream).finish_reason

    # The edge has room for one session.
    for _ in range(3):
        assert once_there_is_room(begin) is None
    assert once_there_is_room(lambda: speaker.generate(PROMPT, max_tokens=3).read().finish_reason) == "length"


def once_there_is_room(ask: Callable[[], str | None]) -> str | None:
    """It may take the edge a moment to see that a client is gone."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return ask()
        except (cleave.Busy, cleave.GenerationFailed):
            time.sleep(0.02)
    pytest.fail("the session of a closed stream is still there")


def test_chats_have_a_template_over_rest_only(language: Nodes) -> None:
    messages = [{"role": "user", "content": "what is split?"}]
    with cleave.Client(language.rest, "small") as speaker:
        answer = speaker.chat(messages, max_tokens=8).read()
        assert answer.finish_reason in ("length", "stop")
        assert answer == speaker.chat(messages, max_tokens=8).read()
        with pytest.raises(cleave.InvalidRequest, match="role"):
            speaker.chat([{"role": "captain", "content": "x"}]).read()
    with cleave.Client(language.grpc, "small") as speaker, pytest.raises(cleave.Unsupported, match="http://"):
        speaker.chat(messages).read()


def test_what_is_refused(speaker: cleave.Client) -> None:
    refused = (cleave.InvalidRequest, cleave.GenerationFailed)
    for arguments in ({"max_tokens": 0}, {"temperature": 3.0}, {"top_p": 2.0}, {"max_tokens": 100_000}):
        with pytest.raises(refused) as caught:
            speaker.generate(PROMPT, **arguments).read()
        assert caught.value.message
    with pytest.raises(refused):
        speaker.generate([2**40]).read()


def test_a_model_that_does_not_generate_says_so(edge: cleave.Client) -> None:
    with pytest.raises((cleave.InvalidRequest, cleave.GenerationFailed)) as caught:
        edge.generate("x").read()
    assert caught.value.message


def test_texts_in_place_of_token_ids(language: Nodes, speaker: cleave.Client) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(language.folder / "tokenizer.json"))
    ids = np.array([tokenizer.encode(PROMPT).ids])
    expected = speaker.infer({"input_ids": ids})
    for text in (PROMPT, [PROMPT], {"text": [PROMPT]}):
        np.testing.assert_array_equal(speaker.infer(text).array, expected.array)
    with pytest.raises(cleave.InvalidRequest, match="INT64"):
        speaker.infer({"input_ids": ids.astype(np.float32)})
