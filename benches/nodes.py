"""Both nodes for a benchmark, requests to them, and what a report says of the machine."""

import array
import datetime
import http.client
import json
import pathlib
import random
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / "target/release/edge-node"
HEADER_LENGTH = "Inference-Header-Content-Length"


def sh(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def machine():
    """The line below a report's title: where, when, and of which commit."""
    names = [l.split(":", 1)[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    commit = sh("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    kernel = sh("uname", "-r").split("-")[0]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return f"{names[0]}, {len(names)} cores, Linux {kernel}; {today}; commit {commit}"


def write(path, text):
    """Under a temporary name first, so that a report is there as a whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".partial")
    temporary.write_text(text)
    temporary.rename(path)


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def resident(pid):
    """Bytes of memory that a process has."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))


class Cloud:
    """A cloud node, until `end`."""

    def __init__(self, edge_node, work, *sets):
        (self.port,) = free_ports(1)
        self.log = work / "cloud.log"
        sets = [f"cloud.listen=127.0.0.1:{self.port}", f"runs.dir={work / 'runs'}", *sets]
        command = [str(edge_node.with_name("cloud-node")), "serve", *flags(sets)]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            if self.process.poll() is not None:
                sys.exit(f"the cloud ended: {self.log.read_text().strip()}")
            time.sleep(0.05)

    def end(self):
        self.process.terminate()
        self.process.wait()


class Edge:
    """An edge node of one cloud, with a configuration file of its own that `configure` replaces."""

    def __init__(self, edge_node, work, cloud, sets, name="edge"):
        self.edge_node = edge_node
        self.file, self.log = work / f"{name}.toml", work / f"{name}.log"
        self.grpc, self.http = free_ports(2)
        self.sets = [
            f"runs.dir={work / 'runs'}", f"edge.cloud=http://127.0.0.1:{cloud.port}",
            f"edge.grpc_listen=127.0.0.1:{self.grpc}", f"edge.http_listen=127.0.0.1:{self.http}", *sets,
        ]
        self.process = self.connection = None

    def configure(self, text):
        write(self.file, text)

    def start(self):
        self.log.write_text("")
        command = [str(self.edge_node), "serve", "--config", str(self.file), *flags(self.sets)]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def run(self, *words):
        """Another command of the edge node with the same settings; its output."""
        command = [str(self.edge_node), *words, "--config", str(self.file), *flags(self.sets)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def metadata(self, patience_s=120):
        """Of the model, once it is served."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.get("/v2/health/ready") is not None:
                    return json.loads(self.get("/v2/models/digits"))
            except OSError:
                self.connection = None
            time.sleep(0.02)
        sys.exit(f"the edge does not serve: {self.log.read_text().strip()[-2000:]}")

    def get(self, path):
        connection = self.connected()
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
        return body if reply.status == 200 else None

    def connected(self):
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=300)
            self.connection.connect()
            self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.connection

    def ask(self, request):
        """Sends a request; ms until the answer is here, and the answer's parameters."""
        body, headers = request
        connection = self.connected()
        begin = time.perf_counter()
        connection.request("POST", "/v2/models/digits/infer", body, headers)
        reply = connection.getresponse()
        answer = reply.read()
        took = (time.perf_counter() - begin) * 1e3
        if reply.status != 200:
            raise RuntimeError(f"HTTP {reply.status}: {answer.decode(errors='replace')}")
        header = answer[: int(reply.headers.get(HEADER_LENGTH, len(answer)))]
        return took, json.loads(header)["parameters"]

    def end(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def flags(sets):
    return [word for setting in sets for word in ("--set", setting)]


def binary_request(metadata, length, seed):
    """A sample of what the model takes, as the protocol's binary data; what varies has this length."""
    draw = random.Random(seed)
    inputs, data = [], b""
    names = [port["name"] for port in metadata["inputs"]]
    for port in metadata["inputs"]:
        if port["name"] == "length" and "attention_mask" in names:
            continue  # The other way to say the same.
        shape = [1] + [length if extent < 0 else extent for extent in port["shape"][1:]]
        values = 1
        for extent in shape:
            values *= extent
        if port["datatype"] == "FP32":
            tensor = array.array("f", (draw.gauss(0, 1) for _ in range(values)))
        elif "mask" in port["name"]:
            tensor = array.array("q", [1] * values)
        else:
            tensor = array.array("q", (draw.randrange(2) for _ in range(values)))
        sent = tensor.tobytes()
        data += sent
        inputs.append({"name": port["name"], "datatype": port["datatype"], "shape": shape,
                       "parameters": {"binary_data_size": len(sent)}})
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return header + data, headers
