"""Measures how long transfers take: a server, and a client that times them.

A transfer opens its connections, tells each how much to expect, lets them fall silent, and then sends on
all of them at once. It is over when the last one's one-byte answer is back.
"""

import json
import random
import selectors
import socket
import struct
import sys
import time

BUFFER = bytearray(1 << 20)
ZEROS = memoryview(bytes(1 << 20))
HEADER = struct.Struct("<Q")
# Transfers begin at a random phase of whatever ticks on the way, up to this long, s.
PHASE_S = 0.02


def serve(host, port):
    listener = socket.create_server((host, port), backlog=64)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                accept(selector, listener)
            else:
                answer(selector, key.fileobj, key.data)


def accept(selector, listener):
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    selector.register(connection, selectors.EVENT_READ, {"left": None})


def answer(selector, connection, state):
    try:
        if state["left"] is None:
            header = connection.recv(HEADER.size)
            if len(header) == HEADER.size:
                state["left"] = HEADER.unpack(header)[0]
                connection.send(b"r")
                return
            count = 0
        else:
            count = connection.recv_into(BUFFER)
    except BlockingIOError:
        return
    except OSError:
        count = 0
    if count == 0:
        selector.unregister(connection)
        connection.close()
        return
    state["left"] -= count
    if state["left"] == 0:
        try:
            connection.send(b"d")
        except OSError:
            pass  # The client has gone, and the next event says so.


def measure(host, port, size, streams, settle_s):
    """Milliseconds of one transfer of `size` bytes in all."""
    share = max(1, size // streams)
    sockets = [connect(host, port, share) for _ in range(streams)]
    time.sleep(settle_s + random.uniform(0, PHASE_S))
    selector = selectors.DefaultSelector()
    for connection in sockets:
        connection.setblocking(False)
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        selector.register(connection, both, {"left": share})
    begin = time.perf_counter()
    waiting = streams
    while waiting:
        events = selector.select(120)
        if not events:
            raise TimeoutError(f"no progress for 120 s: {size} bytes, {streams} streams")
        for key, mask in events:
            state = key.data
            if mask & selectors.EVENT_WRITE and state["left"]:
                state["left"] -= key.fileobj.send(ZEROS[: state["left"]])
                if not state["left"]:
                    selector.modify(key.fileobj, selectors.EVENT_READ, state)
            if mask & selectors.EVENT_READ:
                if key.fileobj.recv(1) != b"d":
                    raise ConnectionError("the server went away")
                selector.unregister(key.fileobj)
                waiting -= 1
    took = (time.perf_counter() - begin) * 1e3
    for connection in sockets:
        connection.close()
    return took


def connect(host, port, share):
    connection = socket.create_connection((host, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(HEADER.pack(share))
    if connection.recv(1) != b"r":
        raise ConnectionError("the server is not there")
    return connection


def main():
    role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if role == "serve":
        serve(host, port)
    settle_s = float(sys.argv[4])
    for line in sys.stdin:
        size, streams, count = json.loads(line)
        times = [measure(host, port, size, streams, settle_s) for _ in range(count)]
        print(json.dumps({"size": size, "streams": streams, "ms": times}), flush=True)


if __name__ == "__main__":
    main()
