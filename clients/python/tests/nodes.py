"""A real cloud and a real edge, on free ports of this machine and in a folder of their own."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Self

import cleave

PATIENCE = 60.0

DIGITS = """
split_point = 2
[model]
family = "lenet"
input = [1, 8, 8]
channels = [4, 8]
hidden = [16]
classes = 10
[link]
profile = "none"
[edge]
max_batch = 64
[train]
epochs = 2
"""

LANGUAGE = """
split_point = 2
[model]
family = "gpt2"
vocab_size = 384
n_positions = 256
n_embd = 48
n_layer = 3
n_head = 4
[weights]
tokenizer = "tokenizer.json"
[link]
profile = "none"
[edge]
model_name = "small"
max_sessions = 1
"""


def programs() -> Path:
    """The folder of CLEAVE_BIN_DIR, with both programs in it."""
    folder = os.environ.get("CLEAVE_BIN_DIR")
    assert folder, "CLEAVE_BIN_DIR is not set: name the folder of cloud-node and edge-node, such as target/debug"
    path = Path(folder).resolve()
    for program in ("cloud-node", "edge-node"):
        assert (path / program).is_file(), f"CLEAVE_BIN_DIR: {path / program} is missing; cargo build makes it"
    return path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Nodes:
    """Both nodes; `with` ends them."""

    def __init__(self, folder: Path, config: str, model: str = "digits") -> None:
        self.folder, self.model = folder, model
        self.bin = programs()
        # Settings of whoever runs the tests are not theirs.
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("CLEAVE_")}
        self.cloud_port, self.grpc_port, self.http_port = free_ports(3)
        (folder / "config").mkdir()
        # The digits' default place is in the repository.
        self.repository = Path(__file__).resolve().parents[3]
        self.write_config(config)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    def write_config(self, text: str) -> None:
        """Replaces the configuration, as an editor does."""
        edited = self.folder / "config" / "edited"
        edited.write_text(text)
        edited.rename(self.folder / "config" / "cleave.toml")

    def command(self, program: str, *words: str) -> list[str]:
        settings = {
            "cloud.listen": f"127.0.0.1:{self.cloud_port}",
            "edge.cloud": f"http://127.0.0.1:{self.cloud_port}",
            "edge.grpc_listen": f"127.0.0.1:{self.grpc_port}",
            "edge.http_listen": f"127.0.0.1:{self.http_port}",
            "runs.dir": str(self.folder / "runs"),
        }
        sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        config = str(self.folder / "config" / "cleave.toml")
        return [str(self.bin / program), *words, "--config", config, *sets]

    def start(self, program: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self.running[program] = subprocess.Popen(
                self.command(program, "serve"),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def stop(self, program: str) -> None:
        process = self.running.pop(program)
        process.kill()
        process.wait()

    def run(self, *words: str) -> str:
        """`edge-node` with these words, to its end."""
        done = subprocess.run(
            self.command("edge-node", *words),
            cwd=self.repository,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def __enter__(self) -> Self:
        try:
            self.start("cloud-node")
            self.start("edge-node")
            with cleave.Client(self.rest, self.model) as client:
                client.wait_ready(PATIENCE)
        except BaseException:
            self.__exit__()
            print(self.log())
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in list(self.running):
            self.stop(program)
