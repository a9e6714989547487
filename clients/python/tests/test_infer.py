"""Arrays through a real edge and its cloud."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from nodes import DIGITS, PATIENCE, Nodes
from numpy.typing import NDArray

import cleave

Images = NDArray[np.float32]


def test_what_the_edge_says_of_itself_is_the_same_over_both(digits: Nodes) -> None:
    with cleave.Client(digits.rest) as rest, cleave.Client(digits.grpc) as grpc:
        assert rest.live() is True
        assert grpc.live() is True
        assert rest.ready() is True
        assert grpc.ready() is True
        assert rest.server() == grpc.server()
        assert rest.server().name == "cleave"
        model = rest.model()
        assert model == grpc.model()
    assert model.versions == ("seed-7",)
    assert model.inputs == (cleave.TensorSpec("input", "FP32", (-1, 1, 8, 8)),)
    assert model.outputs == (cleave.TensorSpec("logits", "FP32", (-1, 10)),)


def test_answers_are_those_of_the_stock_client(digits: Nodes, edge: cleave.Client, images: Images) -> None:
    # In one process with this package, whose messages are of the same protocol.
    stock = triton.InferenceServerClient(f"127.0.0.1:{digits.grpc_port}")
    tensor = triton.InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    expected = stock.infer("digits", [tensor]).as_numpy("logits")
    answer = edge.infer(images)
    np.testing.assert_array_equal(answer["logits"], expected)
    assert answer.array is answer["logits"]
    assert answer["logits"].dtype == np.float32
    assert list(answer) == ["logits"]
    answer["logits"][0, 0] = 1.0


def test_inputs_may_be_named_nested_lists_integers_or_doubles(edge: cleave.Client) -> None:
    pixels = np.random.default_rng(1).integers(0, 16, (1, 1, 8, 8))
    expected = edge.infer(pixels.astype(np.float32))["logits"]
    for same in (pixels, pixels.astype(np.uint8), pixels.astype(np.float64), pixels.tolist(), {"input": pixels}):
        np.testing.assert_array_equal(edge.infer(same)["logits"], expected)
    # A view that is not contiguous, in the other byte order.
    strange = np.asfortranarray(pixels).astype(">f4")
    np.testing.assert_array_equal(edge.infer(strange)["logits"], expected)


def test_an_answer_says_where_its_time_went(edge: cleave.Client, images: Images) -> None:
    answer = edge.infer(images, id="request-1", outputs=["logits"], exits=False)
    timing = answer.timing
    assert timing.split_point == 2
    assert all(ms >= 0 for ms in timing.parts.values())
    assert timing.head_ms > 0
    assert timing.tail_ms > 0
    assert timing.uplink_ms + timing.downlink_ms > 0
    assert timing.total_ms == pytest.approx(sum(timing.parts.values()))
    # The client waits for all that the edge reports, and for itself.
    assert answer.elapsed_ms > timing.total_ms - 1
    assert (answer.id, answer.model, answer.version, answer.exits) == ("request-1", "digits", "seed-7", None)


def test_one_client_serves_many_threads(edge: cleave.Client, images: Images) -> None:
    expected = edge.infer(images)["logits"]
    with ThreadPoolExecutor(8) as pool:
        for answer in pool.map(edge.infer, [images] * 40):
            np.testing.assert_array_equal(answer["logits"], expected)


def test_a_split_point_that_moves_is_seen_and_changes_no_bit(own: Nodes, images: Images) -> None:
    with cleave.Client(own.rest) as edge:
        before = edge.infer(images)
        for split in (5, 0):
            own.write_config(DIGITS.replace("split_point = 2", f"split_point = {split}"))
            end = time.monotonic() + PATIENCE
            while (answer := edge.infer(images)).timing.split_point != split:
                assert time.monotonic() < end, own.log()
            np.testing.assert_array_equal(answer["logits"], before["logits"])


def test_trained_weights_answer_and_have_their_version(own: Nodes, images: Images) -> None:
    with cleave.Client(own.grpc) as edge:
        before = edge.infer(images)
        assert before.version == "seed-7"
        own.run("train", "--run", "short")
        end = time.monotonic() + PATIENCE
        while not (answer := edge.infer(images)).version.startswith("short-"):
            assert time.monotonic() < end, own.log()
        assert not np.array_equal(answer["logits"], before["logits"])
        assert edge.infer(images, version=answer.version).version == answer.version
        with pytest.raises(cleave.NotFound, match="no version"):
            edge.infer(images, version="seed-7")
