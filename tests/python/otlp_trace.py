"""One request's trace, as a real OpenTelemetry collector received it: otlp_trace.py FOLDER-WITH-NODES.

Starts a collector (rotel, from PyPI), a cloud and an edge on the profile 5g-midband, asks with a trace of its own, and
looks at what came: spans of both nodes under the client's trace id, whose times add up to the client's.
"""

import json
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

# Each answer takes tens of ms on this link; what HTTP itself takes is in the client's time alone.
MOST_DIFFERENCE = 0.05
REQUESTS = 20
PATIENCE_S = 60
PARTS = ["head", "encode", "uplink", "queue", "decode", "tail", "downlink"]
CONFIG = """split_point = 2
model = "lenet"
[link]
profile = "5g-midband"
[trace]
otlp = "http://127.0.0.1:{otlp}"
"""


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def waits_for(what, look):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            seen = look()
            if seen:
                return seen
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"otlp_trace: waited {PATIENCE_S} s for {what}")


def ask(url, body, trace):
    """The answer's parameters, and what it took the client, ms."""
    headers = {"Content-Type": "application/json", "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    begin = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as reply:
        answer = json.loads(reply.read())
    return answer["parameters"], (time.perf_counter() - begin) * 1e3
