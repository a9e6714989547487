"""What goes wrong: on the edge, in its cloud, on the way, and in the request."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from nodes import PATIENCE, Nodes, free_ports
from numpy.typing import NDArray

import cleave

Images = NDArray[np.float32]
MODEL = (
    b'{"name":"digits","versions":["1"],"platform":"","inputs":[{"name":"input","datatype":"FP32",'
    b'"shape":[-1,2]}],"outputs":[]}'
)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 1, 8, 9), r"shape \[1, 1, 8, 9\]"), ((1, 64), r"shape \[1, 64\]"), ((0, 1, 8, 8), "batch")],
)
def test_a_wrong_shape_is_refused_in_the_edge_s_words(edge: cleave.Client, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(cleave.InvalidRequest, match=words) as caught:
        edge.infer(np.zeros(shape, np.float32))
    assert caught.value.status is cleave.Status.INVALID_ARGUMENT
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_what_cannot_be_sent_is_refused_before(edge: cleave.Client, images: Images) -> None:
    for wrong in (np.array([1j]), np.array(["a"], dtype=object), [[1.0], [1.0, 2.0]]):
        with pytest.raises(cleave.InvalidRequest, match="input"):
            edge.infer({"input": wrong})
    with pytest.raises(cleave.InvalidRequest, match="no input 'image'"):
        edge.infer({"image": images})
    with pytest.raises(cleave.InvalidRequest, match="name it"):
        edge.infer("a text")
    with pytest.raises(cleave.InvalidRequest, match="no output"):
        edge.infer(images, outputs=["probabilities"])


def test_another_model_is_not_found(digits: Nodes, images: Images) -> None:
    for url in (digits.rest, digits.grpc):
        with cleave.Client(url, "boats") as edge:
            for call in (edge.model, edge.ready, lambda client=edge: client.infer(images)):
                with pytest.raises(cleave.NotFound, match="boats"):
                    call()


def test_too_large_a_batch_is_refused(edge: cleave.Client) -> None:
    with pytest.raises(cleave.InvalidRequest, match="64"):
        edge.infer(np.zeros((65, 1, 8, 8), np.float32))
    with pytest.raises(cleave.TooLarge):
        edge.infer(np.zeros((10_000, 1, 8, 8), np.float32))


def test_a_deadline_is_kept(edge: cleave.Client, images: Images) -> None:
    edge.infer(images)
    with pytest.raises(cleave.DeadlineExceeded, match="within 1e-05 s") as caught:
        edge.infer(images, timeout=1e-5)
    assert isinstance(caught.value, TimeoutError)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there(scheme: str, images: Images) -> None:
    (port,) = free_ports(1)
    with cleave.Client(f"{scheme}://127.0.0.1:{port}", timeout=5) as edge:
        assert edge.live() is False
        assert edge.ready() is False
        begin = time.monotonic()
        with pytest.raises(cleave.Unavailable, match=str(port)):
            edge.infer(images)
        assert time.monotonic() - begin < 5
        with pytest.raises(cleave.DeadlineExceeded, match=r"not ready after 0\.5 s: .*" + str(port)):
            edge.wait_ready(0.5)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_cloud_that_dies_is_an_error_and_one_that_comes_back_an_answer(
    own: Nodes, transport: str, images: Images
) -> None:
    with cleave.Client(getattr(own, transport), retry=cleave.Retry(attempts=1)) as impatient:
        expected = impatient.infer(images)["logits"]
        own.stop("cloud-node")
        with pytest.raises((cleave.Unavailable, cleave.DeadlineExceeded)):
            impatient.infer(images)
        restart = threading.Timer(1.0, own.start, ["cloud-node"])
        restart.start()
        with cleave.Client(getattr(own, transport), timeout=PATIENCE, retry=cleave.Retry(attempts=1000)) as patient:
            np.testing.assert_array_equal(patient.infer(images)["logits"], expected)
        restart.join()


class Listener:
    """A peer that is no edge: it reads a request and sends bytes one by one, with pauses."""

    def __init__(self, replies: list[bytes], pause: float = 0.0) -> None:
        self.replies, self.pause, self.seen = replies, pause, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.seen += 1
            reply = self.replies[min(self.seen, len(self.replies)) - 1]
            threading.Thread(target=self._answer, args=(peer, reply), daemon=True).start()

    def _answer(self, peer: socket.socket, reply: bytes) -> None:
        with peer, contextlib.suppress(OSError):
            peer.recv(1 << 16)
            if not self.pause:
                peer.sendall(reply)
                return
            for byte in reply:
                peer.sendall(bytes([byte]))
                time.sleep(self.pause)


@contextlib.contextmanager
def listening(*replies: bytes, pause: float = 0.0) -> Iterator[Listener]:
    listener = Listener(list(replies), pause)
    try:
        yield listener
    finally:
        listener.socket.close()


def http(body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def test_a_peer_that_trickles_keeps_no_one_beyond_the_deadline() -> None:
    with listening(http(MODEL), pause=0.1) as peer, cleave.Client(peer.url, timeout=0.5) as edge:
        begin = time.monotonic()
        with pytest.raises(cleave.DeadlineExceeded):
            edge.model()
        assert time.monotonic() - begin < 1.5


def test_a_call_that_was_lost_is_sent_again_and_a_generation_is_not() -> None:
    with listening(b"", b"", http(MODEL)) as peer, cleave.Client(peer.url) as edge:
        assert edge.model().name == "digits"
        assert peer.seen == 3
    with listening(b"") as peer, cleave.Client(peer.url) as edge:
        with pytest.raises(cleave.Unavailable) as caught:
            edge.generate("x").read()
        assert caught.value.sent
        assert peer.seen == 1


def test_a_busy_edge_is_asked_again_also_for_a_generation() -> None:
    busy = http(b'{"error":{"message":"too many","type":"rate_limit_error"}}', "429 Too Many Requests")
    events = (
        b'data: {"choices":[{"text":"a\xe2\x80\xa8b","finish_reason":null}]}\n\n: alive\n\n'
        b'data: {"choices":[{"text":"","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    )
    with listening(busy, http(events)) as peer, cleave.Client(peer.url) as edge:
        piece = edge.generate("x").read()
        # U+2028 ends no line of the stream.
        assert (piece.text, piece.finish_reason, peer.seen) == ("a\u2028b", "stop", 2)
    with listening(busy) as peer, cleave.Client(peer.url) as edge:
        with pytest.raises(cleave.Busy, match="too many"):
            edge.model()
        assert peer.seen == 3


def test_a_stream_that_breaks_off_is_no_end() -> None:
    begun = b'data: {"choices":[{"text":"a","finish_reason":null}]}\n\n'
    broken = b'data: {"error":{"message":"the cloud is gone","type":"service_unavailable_error"}}\n\n'
    for events, kind in ((begun, cleave.ServerError), (begun + broken, cleave.Unavailable)):
        with listening(http(events)) as peer, cleave.Client(peer.url) as edge:
            stream = edge.generate("x")
            assert next(stream).text == "a"
            with pytest.raises(kind):
                next(stream)
            assert peer.seen == 1


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"name":1,"versions":3}'])
def test_something_else_that_listens_there_is_named(body: bytes) -> None:
    with listening(http(body)) as peer, cleave.Client(peer.url) as edge:
        with pytest.raises(cleave.ServerError, match="not the protocol's"):
            edge.model()


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a:b", "http://a/?q", "grpc://", "http://me:secret@a"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(cleave.InvalidRequest, match="address") as caught:
        cleave.Client(url)
    assert "secret" not in str(caught.value)
