"""The processes of benches/wire: servers that echo, and clients that measure round trips to them."""

import json
import pathlib
import subprocess
import sys

import nodes

GRPCIO_ECHO = pathlib.Path(__file__).resolve().parent / "grpcio_echo.py"
# Longer than any measurement takes; only a peer that hangs takes that long.
PATIENCE_S = 300
# One warm-up round trip for so many that count: buffers and TCP's windows have their size then.
WARM_UP = 10


class Server:
    """Prints its port once it listens; runs until `end`."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(command)} ended with {self.process.wait()}")
        self.port = int(line)

    def end(self):
        self.process.kill()
        self.process.wait()


class Client:
    """A command that makes round trips, one after the other, in a process of its own each time."""

    def __init__(self, command, port):
        self.command = [*command, "--port", str(port)]

    def measure(self, tensor_bytes, trips):
        """What each of so many took, µs, and the bytes of a request."""
        warm_up = max(1, trips // WARM_UP)
        command = [*self.command, "--bytes", str(tensor_bytes), "--count", str(trips), "--warm-up", str(warm_up)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)


def pinned_grpcio():
    """The version that the tests have."""
    lines = (nodes.ROOT / "tests/python/requirements.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("grpcio==")).removeprefix("grpcio==")


def python_with_grpcio():
    """A Python that has grpcio and nothing else; made where it is missing."""
    folder = nodes.ROOT / "target/wire-venv"
    python, wanted = folder / "bin/python", pinned_grpcio()
    show = [str(python), "-c", "import grpc; print(grpc.__version__)"]
    if python.exists() and subprocess.run(show, capture_output=True, text=True).stdout.strip() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"grpcio=={wanted}"]
    subprocess.run([str(python), *install], check=True)
    return python
