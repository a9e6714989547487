"""A folder in which a document's commands run, and the nodes that they ask, at their default ports."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import document_files
import document_tables as tables

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90
SERVER = re.compile(r"\b((cloud|edge)-node serve|edge-node link(?!.*--simulate)|edge-node demo(?!.*--exit))\b")
# What both nodes are started with, for each stage; on top, what the edge alone gets.
STAGES = {
    "digits": ("", ""),
    "bert": ("--config bert.toml", ""),
    "gpt2": ("--config gpt2.toml", ""),
    "small": ("--config gpt2.toml", "--set edge.model_name=small"),
    "resnet18": (
        "--model resnet18 --set weights.file=models/resnet18",
        "--split-point 9 --set edge.model_name=resnet18",
    ),
    "short": ("--model resnet18 --set weights.file=models/short", "--split-point 9 --set edge.model_name=short"),
    "linear": ("--model linear-regression", ""),
    "flowers": ("--config mine/flowers.toml", ""),
    "pictures": ("--config mine/pictures.toml", ""),
}


class Failed(Exception):
    pass


class Sandbox:
    """Config, data and the files that the commands name. Ends its nodes when it is left."""

    def __init__(self, folder, programs, template=None):
        self.folder, self.programs = folder, programs
        self.servers, self.stage, self.stage_is_own = {}, None, False
        self.printed, self.prepared = [], set()
        if template:
            shutil.copytree(template, folder, symlinks=True)
        else:
            document_files.write_all(folder)
            shutil.copytree(ROOT / "data", folder / "data")
            for name in (
                "home/.zfunc",
                "home/.config/fish/completions",
                "root/etc/bash_completion.d",
                "root/usr/local/share/man/man1",
            ):
                (folder / name).mkdir(parents=True)
            for name in ("config", "root/etc/cleave"):
                shutil.copytree(ROOT / "config", folder / name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_all()

    def stop_all(self):
        """Every one, and only then says which had ended by itself."""
        failures = []
        for kind in list(self.servers):
            try:
                self.stop(kind)
            except Failed as failed:
                failures.append(failed)
        if failures:
            raise failures[0]

    def environment(self):
        # No proxy either: there is no network but the loopback.
        kept = {name: value for name, value in os.environ.items() if not re.match(r"(?i)CLEAVE_|\w+_proxy$", name)}
        return kept | {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            # A link that is simulated, and the quickest of them; one epoch.
            "CLEAVE_LINK__PROFILE": "wifi",
            "CLEAVE_TRAIN__EPOCHS": "1",
        }

    def prepare(self, line):
        """A command that the document takes for granted, once."""
        if line not in self.prepared:
            self.prepared.add(line)
            self.command(line)

    def command(self, line, expected=0):
        """Runs what was typed; what serves goes on in the background."""
        self.ensure(next((stage for pattern, stage in tables.STAGES if re.search(pattern, line)), None))
        if "edge-node demo" in line:
            # It starts both nodes itself.
            self.stop("cloud")
            self.stop("edge")
        if SERVER.search(line):
            self.serve(line)
            self.stage_is_own = True
        else:
            self.run(["bash", "-ec", line], line, expected)

    def run(self, words, shown, expected=0):
        with open(self.folder / "output", "w+b") as output:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                end(process)
                status = f"none within {LIMIT_S} s"
            output.seek(0)
            text = output.read().decode(errors="replace")
        self.printed.append(text)
        if status != expected:
            raise Failed(f"$ {shown}\n{text}exit status: {status}\n{self.logs()}")

    # The nodes

    def ensure(self, stage):
        """That nodes run: those of the stage, or any if it is none in particular and the document started its own."""
        if {"cloud", "edge"} <= set(self.servers):
            if self.stage == stage or stage is None and (self.stage_is_own or self.stage == "digits"):
                return
        common, edge = STAGES[stage or "digits"]
        self.serve(f"cloud-node serve {common}")
        self.serve(f"edge-node serve {common} {edge}")
        self.stage, self.stage_is_own = stage or "digits", False

    def serve(self, line):
        kind = "cloud" if "cloud-node" in line else "link" if "edge-node link" in line else "edge"
        self.stop(kind)
        log = self.folder / f"{kind}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", line.rstrip(" &")],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.servers[kind] = (process, log)
        until = time.monotonic() + LIMIT_S
        while not self.answers(kind, line):
            if process.poll() is not None or time.monotonic() > until:
                raise Failed(f"$ {line}\n{log.read_text(errors='replace')}it does not serve: {process.poll()}")
            time.sleep(0.05)

    def answers(self, kind, line):
        if kind == "edge":
            try:
                connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=5)
                connection.request("GET", "/v2/health/ready")
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False
        port = 50051 if kind == "cloud" else int(re.search(r"--listen \S+:(\d+)", line)[1])
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return True
        except OSError:
            return False

    def stop(self, kind):
        if kind in self.servers:
            process, log = self.servers.pop(kind)
            ended = process.poll()
            end(process)
            self.printed.append(log.read_text(errors="replace"))
            if ended is not None:
                raise Failed(f"{kind} ended by itself, with {ended}:\n{self.printed[-1]}")

    def forget(self):
        """Ends what a document's own command has started, so that the next one finds the stage that it needs."""
        if self.stage_is_own or set(self.servers) - {"cloud", "edge"}:
            self.stage, self.stage_is_own = None, False
            self.stop_all()

    def logs(self):
        logs = [f"{kind}:\n{log.read_text(errors='replace')[-2000:]}" for kind, (_, log) in self.servers.items()]
        return "\n".join(logs)


def end(process):
    """With all that it has started; a node that is asked to end has a few seconds."""
    for signal_number, wait_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, signal_number)
        except ProcessLookupError:
            return
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.02)
