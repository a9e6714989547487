"""Two clouds behind proxies, and many edges, as processes of this machine, with mutual TLS between them."""

import asyncio
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import nodes
from soak_parts.client import ready
from soak_parts.proxy import Proxy

CONFIG = """split_point = 2
[model]
family = "lenet"
input = [1, 8, 8]
channels = [4, 8]
hidden = [16]
classes = 10
[link]
profile = "none"
[edge]
threads = 1
kernel_threads = 1
fallback = "whole"
shuffle = true
deadline_ms = 3000
[cloud]
threads = 2
kernel_threads = 1
max_runs = 64
[train]
epochs = 20
batch_size = 51
micro_batches = 2
clip_norm = 1.0
checkpoint_every = 20
step_timeout_s = 2
reconnect_timeout_s = 120
schedule = { kind = "cosine", warmup_steps = 20, floor = 0.01 }
[train.optimizer]
kind = "adam"
learning_rate = 0.01
beta1 = 0.9
beta2 = 0.999
epsilon = 1e-8
"""
WHOLE = 6
# libfaketime: the clock of the wall jumps, that of durations does not, as when NTP or a person sets it.
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
JUMPS = ["+7d", "-30m", "+2h", "+0"]


class Processes:
    """Everything in `work`. The first cloud is killed now and then; the second one never, so that its memory tells."""

    def __init__(self, edge_node, work, edges):
        self.edge_node, self.work, self.count = pathlib.Path(edge_node), work, edges
        self.config = work / "cleave.toml"
        self.config.write_text(CONFIG)
        self.clock = work / "clock"
        self.clock.write_text("+0")
        ports = nodes.free_ports(4 + 2 * edges)
        self.cloud_ports, self.proxy_ports, ports = ports[:2], ports[2:4], ports[4:]
        self.grpc_ports, self.http_ports = ports[:edges], ports[edges:]
        self.proxies = [Proxy(port) for port in self.cloud_ports]
        self.clouds, self.edges, self.helpers = [None, None], [], []

    # Programs.

    def environment(self):
        if not os.path.exists(FAKETIME):
            sys.exit(f"{FAKETIME} is missing, which makes clocks jump: apt-get install faketime")
        return os.environ | {
            "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def identity(self, name):
        folder = self.work / "certs" / name
        return [f"security.ca={folder / 'ca.pem'}", f"security.certificate={folder / 'node.pem'}",
                f"security.key={folder / 'node-key.pem'}"]

    def command(self, program, words, sets, config=None):
        binary = self.edge_node.with_name(program)
        return [str(binary), *words, "--config", str(config or self.config), *nodes.flags(sets)]

    def spawn(self, name, command):
        with open(self.work / f"{name}.log", "a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=self.environment())

    def start_cloud(self, which):
        sets = [f"cloud.listen=127.0.0.1:{self.cloud_ports[which]}", f"runs.dir={self.work / 'runs'}",
                *self.identity("cloud")]
        self.clouds[which] = self.spawn(f"cloud-{which}", self.command("cloud-node", ["serve"], sets))

    def edge_sets(self, grpc, http, runs, clouds):
        first, *others = [f"https://localhost:{port}" for port in clouds]
        standby = ",".join(f'"{cloud}"' for cloud in others)
        return [f"edge.grpc_listen=127.0.0.1:{grpc}", f"edge.http_listen=127.0.0.1:{http}", f"runs.dir={runs}",
                f"edge.cloud={first}", f"edge.standby=[{standby}]", *self.identity("edge")]

    async def start(self):
        """All of them; the edges serve weights that were trained at the beginning."""
        certs = self.command("edge-node", ["certs", "--dir", str(self.work / "certs"), "--edge", "edge"], [])
        subprocess.run(certs[: certs.index("--config")], check=True, stdout=subprocess.DEVNULL)
        for which in range(2):
            self.start_cloud(which)
            await self.proxies[which].start(self.proxy_ports[which])
        train = await self.train("served", resume=False, runs=self.work / "runs")
        if await train.wait() != 0:
            sys.exit(f"no weights to serve: {self.training_log('served')}")
        for number, (grpc, http) in enumerate(zip(self.grpc_ports, self.http_ports)):
            # Devices of their own: each watches its own folders.
            own = self.work / f"edge-{number}"
            shutil.copytree(self.work / "runs" / "edge", own / "runs" / "edge")
            shutil.copy(self.config, own)
            sets = self.edge_sets(grpc, http, own / "runs", self.proxy_ports)
            command = self.command("edge-node", ["serve"], sets, own / "cleave.toml")
            self.edges.append(self.spawn(f"edge-{number}", command))
        for number in range(self.count):
            await self.ready(self.http_ports[number], f"edge-{number}")

    async def ready(self, port, name):
        await ready("127.0.0.1", port, lambda: (self.work / f"{name}.log").read_text()[-2000:])

    async def start_whole(self):
        """An edge that has no cloud and needs none: the unsplit model. Gives its address."""
        grpc, http = nodes.free_ports(2)
        sets = [*self.edge_sets(grpc, http, self.work / "runs", [self.cloud_ports[1]]), f"split_point={WHOLE}"]
        self.helpers.append(self.spawn("whole", self.command("edge-node", ["serve"], sets)))
        await self.ready(http, "whole")
        return "127.0.0.1", http

    def addresses(self):
        return [(f"edge-{number}", "127.0.0.1", port) for number, port in enumerate(self.http_ports)]

    # Training, through the first proxy, to the cloud that is killed.

    async def train(self, run, resume, runs=None):
        sets = self.edge_sets(0, 0, runs or self.work / "trainers", self.proxy_ports[:1])
        words = ["train", "--run", run, *(["--resume"] if resume else [])]
        with open(self.work / f"{run}.log", "a") as log:
            return await asyncio.create_subprocess_exec(
                *self.command("edge-node", words, sets), stdout=log, stderr=log, env=self.environment())

    def kill_training(self, _, process):
        process.kill()

    def run_folders(self, run):
        return {"edge": self.work / "trainers" / "edge" / run, "cloud": self.work / "runs" / "cloud" / run}

    def training_log(self, run):
        return (self.work / f"{run}.log").read_text()[-1500:]

    # Faults.

    def faults(self):
        """Each by its name; they take a source of chance, and end when it is over."""
        return {
            "cloud killed": self.kill_cloud,
            "cloud paused": self.pause_cloud,
            "link cut": self.cut_link,
            "all links cut": self.cut_all,
            "link silent": self.silence_link,
            "link slow": self.slow_link,
            "bytes corrupted": self.corrupt_link,
            "clock jumped": self.jump,
        }

    async def kill_cloud(self, draw):
        self.clouds[0].kill()
        self.clouds[0].wait()
        await asyncio.sleep(draw.uniform(0.2, 3))
        self.start_cloud(0)

    async def pause_cloud(self, draw):
        cloud = self.clouds[1]
        cloud.send_signal(signal.SIGSTOP)
        await asyncio.sleep(draw.uniform(0.5, 4))
        cloud.send_signal(signal.SIGCONT)

    async def cut_link(self, draw):
        draw.choice(self.proxies).cut(draw.uniform(0, 2))

    async def cut_all(self, draw):
        seconds = draw.uniform(0.5, 3)
        for proxy in self.proxies:
            proxy.cut(seconds)

    async def silence_link(self, draw):
        draw.choice(self.proxies).hold(draw.uniform(0.5, 4))

    async def slow_link(self, draw):
        draw.choice(self.proxies).slow(draw.uniform(1, 4))

    async def corrupt_link(self, draw):
        draw.choice(self.proxies).lie(draw.randint(1, 8))

    async def jump(self, draw):
        nodes.write(self.clock, draw.choice(JUMPS))

    # Memory.

    def resident(self):
        """Bytes of each process that lives all the time."""
        all_nodes = {"cloud-1": self.clouds[1]}
        all_nodes |= {f"edge-{number}": edge for number, edge in enumerate(self.edges)}
        return {name: nodes.resident(process.pid) for name, process in all_nodes.items()}

    def dead(self):
        """Those that should live and do not."""
        return [f"edge-{number} ended with {edge.returncode}" for number, edge in enumerate(self.edges)
                if edge.poll() is not None]

    def end(self):
        for process in [*self.clouds, *self.edges, *self.helpers]:
            if process is not None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in [*self.clouds, *self.edges, *self.helpers]:
            if process is not None:
                process.wait()
        shutil.rmtree(self.work / "runs", ignore_errors=True)
