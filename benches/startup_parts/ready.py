"""When a node is ready, to about a millisecond: questions over a bare socket, which take little of the node's time.

The cloud is asked for its health over gRPC (grpc.health.v1), which is one request of HTTP/2, written here by hand: the
client of grpc.io is not in Python's library, and `cloud-node health` would be a process for each question.
"""

import concurrent.futures
import http.client
import socket
import sys
import time

POLL_S = 1e-3
# Longer than any start takes; only a node that hangs takes that long.
PATIENCE_S = 30

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
FRAME_HEAD = 9
# A message of gRPC: not compressed, its length, and it. The request names no service, and so has no bytes; in the
# answer, field 1 is SERVING, which is 1.
NOTHING, SERVING = b"\0\0\0\0\0", b"\0\0\0\0\x02\x08\x01"
FIELDS = {
    b":method": b"POST", b":scheme": b"http", b":path": b"/grpc.health.v1.Health/Check", b":authority": b"localhost",
    b"content-type": b"application/grpc", b"te": b"trailers",
}


def frame(kind, flags, stream, payload):
    """RFC 9113, 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    """A field that is neither compressed nor remembered: RFC 7541, 6.2.2."""
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


QUESTION = b"".join([
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, b""),
    frame(HEADERS, END_HEADERS, 1, b"".join(literal(*field) for field in FIELDS.items())),
    frame(DATA, END_STREAM, 1, NOTHING),
])


def cloud_serves(cloud):
    try:
        return says_serving(cloud.port)
    except OSError:
        return False


def says_serving(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(QUESTION)
        incoming, message = connection.makefile("rb"), b""
        while len(head := incoming.read(FRAME_HEAD)) == FRAME_HEAD:
            kind, flags = head[3:5]
            payload = incoming.read(int.from_bytes(head[:3], "big"))
            if kind == DATA:
                message += payload
            elif kind == HEADERS and flags & END_STREAM:
                return message == SERVING
    return False


def edge_serves(edge):
    try:
        return edge.get("/v2/health/ready") is not None
    except (OSError, http.client.HTTPException):
        edge.connection = None
        return False


def moment(serves, node):
    """When the node first says that it is ready."""
    end = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < end and node.process.poll() is None:
        if serves(node):
            return time.perf_counter()
        time.sleep(POLL_S)
    raise TimeoutError(f"not ready: {node.log.read_text().strip()[-2000:]}")


def moments(cloud, edge):
    """Of both, which are asked at the same time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(moment, cloud_serves, cloud), pool.submit(moment, edge_serves, edge)]
        try:
            return [one.result() for one in asked]
        except TimeoutError as problem:
            sys.exit(f"startup: {problem}")
