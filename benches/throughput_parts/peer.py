"""The peer: an edge and a cloud of PyTorch and grpcio, two Python processes; and the environment that they run in."""

import functools
import json
import pathlib
import subprocess
import sys

import nodes

HERE = pathlib.Path(__file__).resolve().parent
REQUIREMENTS = nodes.ROOT / "tests/python/requirements.txt"
PACKAGES = ["torch", "torchvision", "transformers", "numpy", "grpcio"]
# What the generated messages need (clients/python/pyproject.toml).
PROTOBUF = "protobuf>=6.31.1,<8"


@functools.cache
def python():
    """That of .venv; where there is none, that of an environment with the same versions, which is made once."""
    own = nodes.ROOT / ".venv/bin/python"
    if own.exists():
        return own
    venv = nodes.ROOT / "target/throughput-venv"
    complete = venv / "complete"
    if not complete.exists():
        pinned = [line for line in REQUIREMENTS.read_text().splitlines() if line.split("==")[0] in PACKAGES]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(venv / "bin/pip"), "install", "--quiet", *pinned, PROTOBUF], check=True)
        complete.touch()
    return venv / "bin/python"


class Process:
    """A server, until `end`. Its first line tells its port and what else there is to know of it."""

    def __init__(self, script, log, *words):
        command = [str(python()), "-B", str(HERE / script), *map(str, words)]
        with open(log, "w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            sys.exit(f"{script} ended: {log.read_text().strip()[-2000:]}")
        self.told = json.loads(line)

    def end(self):
        self.process.terminate()
        self.process.wait()


class Torch:
    """Both processes, computing with so many intra-op threads."""

    def __init__(self, load, clients, work, cut, threads, ends):
        self.load, self.clients, self.threads = load, clients, threads
        words = [cut.model, cut.split_point, threads]
        self.cloud = Process("torch_cloud.py", work / f"torch-cloud-{threads}.log", *words)
        ends.callback(self.cloud.end)
        self.edge = Process("torch_edge.py", work / f"torch-edge-{threads}.log", *words, self.cloud.told["port"])
        ends.callback(self.edge.end)
        self.told = self.edge.told

    def run(self, seconds):
        return self.load.run(seconds, "clients", "--port", self.told["port"], "--clients", self.clients)

    def end(self):
        self.edge.end()
        self.cloud.end()
