"""One trace for each request, as a real OpenTelemetry collector received it: otlp_trace.py FOLDER-WITH-NODES.

Starts a collector (rotel, from PyPI) that hands on what it receives, a cloud and an edge on the profile lte, and asks with traces of its own (W3C's traceparent). Each has to come back with spans of both nodes under the client's trace id;
on a machine that has nothing else to do their times add up to what the client measured, and in one of them they have to.
"""

import collections
import gzip
import http.server
import json
import pathlib
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import rotel
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ports import free_ports

# What HTTP itself takes is in the client's time alone.
MOST_DIFFERENCE = 0.05
REQUESTS = 20
PATIENCE_S = 60
# One after the other; "cloud" is all that the cloud did.
PARTS = ["queue", "head", "encode", "uplink", "cloud", "downlink", "decode"]
CLOUD = ["queue", "decode", "tail", "encode"]
CONFIG = """split_point = 2
[model]
family = "lenet"
input = [1, 8, 8]
channels = [4, 8]
hidden = [16]
classes = 10
[link]
profile = "lte"
[trace]
otlp = "http://127.0.0.1:{port}"
"""


class Received(http.server.BaseHTTPRequestHandler):
    """What the collector hands on, by trace id: (node, name, span)."""

    spans = collections.defaultdict(list)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[span.trace_id.hex()].append((names["service.name"], span.name, span))
        body = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def wait_for(what, look):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if seen := look():
                return seen
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"otlp_trace: waited {PATIENCE_S} s for {what}")


def start_collector(otlp, sink):
    agent = pathlib.Path(rotel.__file__).with_name("rotel-agent")
    (rest,) = free_ports(1)
    command = [agent, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{otlp}", "--otlp-http-endpoint", f"127.0.0.1:{rest}",
               "--exporter", "otlp", "--otlp-exporter-endpoint", f"http://127.0.0.1:{sink}",
               "--otlp-exporter-protocol", "http",
               "--batch-timeout", "200ms"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the collector", lambda: socket.create_connection(("127.0.0.1", otlp)))
    return process


def start_nodes(folder, work, otlp):
    cloud, grpc, rest = free_ports(3)
    config = work / "cleave.toml"
    config.write_text(CONFIG.format(port=otlp))
    sets = [f"cloud.listen=127.0.0.1:{cloud}", f"edge.cloud=http://127.0.0.1:{cloud}", f"runs.dir={work / 'runs'}",
            f"edge.grpc_listen=127.0.0.1:{grpc}", f"edge.http_listen=127.0.0.1:{rest}"]
    flags = [word for setting in sets for word in ("--set", setting)]
    started = []
    for node in ("cloud-node", "edge-node"):
        with open(work / f"{node}.log", "w") as log:
            command = [folder / node, "serve", "--config", config, *flags]
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
    url = f"http://127.0.0.1:{rest}/v2"
    wait_for("the edge", lambda: urllib.request.urlopen(f"{url}/health/ready").status == 200)
    return started, f"{url}/models/digits/infer"


def ask(url):
    """The trace id of a request, and what it took the client, ms."""
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
    body, trace = json.dumps({"inputs": [tensor]}).encode(), secrets.token_hex(16)
    headers = {"Content-Type": "application/json", "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
    begin = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as reply:
        reply.read()
    return trace, (time.perf_counter() - begin) * 1e3


def parts_of(spans):
    """ms of each part of a request, from the spans of both nodes."""
    took = lambda span: (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    edge = {name: took(span) for node, name, span in spans if node == "edge-node"}
    cloud = {name: took(span) for node, name, span in spans if node == "cloud-node"}
    missing = [name for name in CLOUD if name not in cloud]
    missing += [name for name in PARTS if name != "cloud" and name not in edge]
    if missing:
        sys.exit(f"otlp_trace: no span {', '.join(missing)} in {sorted(edge)} and {sorted(cloud)}")
    return [edge[name] if name != "cloud" else sum(cloud[part] for part in CLOUD) for name in PARTS]


def check_parents(trace, spans):
    """Every span is the client's, or has a parent among the others."""
    known = {span.span_id for _, _, span in spans}
    outside = [name for _, name, span in spans if span.parent_span_id not in known]
    if outside != ["/v2/models/digits/infer"]:
        sys.exit(f"otlp_trace: {trace}: spans without a parent here: {outside}")


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
    otlp, sink = free_ports(2)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", sink), Received)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as work:
        processes = [start_collector(otlp, sink)]
        try:
            nodes, url = start_nodes(folder, pathlib.Path(work), otlp)
            processes += nodes
            ask(url)
            asked = [ask(url) for _ in range(REQUESTS)]
            wanted = len(PARTS) - 1 + len(CLOUD) + 2
            wait_for("all spans", lambda: all(len(Received.spans[trace]) >= wanted for trace, _ in asked))
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait()
    shares = []
    for trace, client_ms in asked:
        spans = Received.spans[trace]
        check_parents(trace, spans)
        shares.append(sum(parts_of(spans)) / client_ms)
    share = statistics.median(shares)
    times = ", ".join(f"{name} {ms:.2f}" for name, ms in zip(PARTS, parts_of(Received.spans[asked[-1][0]])))
    print(f"{REQUESTS} traces of both nodes; the last, ms: {times}; its client's time {asked[-1][1]:.2f}")
    print(f"the spans' times are {share * 100:.1f} % of the client's in the median "
          f"({min(shares) * 100:.1f} to {max(shares) * 100:.1f})")
    if min(abs(1 - share) for share in shares) > MOST_DIFFERENCE:
        sys.exit("otlp_trace: they differ by more than 5 % in each")


if __name__ == "__main__":
    main()
