"""The two clouds of a compose project, and many edges beside them, broken by the Docker engine."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import time

import nodes
from soak_parts.client import ready

IMAGE = "cleave-edge:local"
PORT = 8000
WHOLE = 6
CLOUDS = ["cloud", "cloud-2"]


def docker(*words):
    return nodes.sh("docker", *words)


class Containers:
    """`docker-compose --profile standby up` has made the clouds and trained what is served."""

    def __init__(self, project, work, edges):
        self.project, self.work, self.count = project, work, edges
        self.network = f"{project}_default"
        self.clouds = [docker("ps", "-q", "--filter", f"label=com.docker.compose.project={project}",
                              "--filter", f"label=com.docker.compose.service={service}") for service in CLOUDS]
        if not all(self.clouds):
            sys.exit(f"the project {project} does not run both of {', '.join(CLOUDS)}")
        self.made, self.edges, self.pids = [], [], {}

    def run_words(self, name, runs, settings):
        volumes = [f"{nodes.ROOT / 'config'}:/etc/cleave:ro", f"{self.project}_edge-identity:/identity:ro",
                   f"{runs}:/var/lib/cleave"]
        settings = {
            "CLEAVE_SECURITY__CA": "/identity/ca.pem", "CLEAVE_SECURITY__CERTIFICATE": "/identity/node.pem",
            "CLEAVE_SECURITY__KEY": "/identity/node-key.pem", "CLEAVE_SECURITY__PLAINTEXT": '["clients"]',
            "CLEAVE_RUNS__DIR": "/var/lib/cleave", "CLEAVE_EDGE__CLOUD": "https://cloud:50051",
            "CLEAVE_EDGE__THREADS": "1", "CLEAVE_EDGE__KERNEL_THREADS": "1",
        } | settings
        words = ["--name", name, "--network", self.network, "--read-only", "--tmpfs", "/tmp", "--no-healthcheck"]
        words += [word for volume in volumes for word in ("-v", volume)]
        return words + [word for key, value in settings.items() for word in ("-e", f"{key}={value}")]

    async def serve(self, name, **settings):
        """An edge; its address."""
        settings = {
            "CLEAVE_EDGE__STANDBY": '["https://cloud-2:50051"]', "CLEAVE_EDGE__SHUFFLE": "true",
            "CLEAVE_EDGE__FALLBACK": "whole", "CLEAVE_EDGE__DEADLINE_MS": "3000",
            "CLEAVE_EDGE__GRPC_LISTEN": "0.0.0.0:8001", "CLEAVE_EDGE__HTTP_LISTEN": f"0.0.0.0:{PORT}",
        } | settings
        name = f"{self.project}-soak-{name}"
        words = self.run_words(name, f"{self.project}_edge-runs", settings)
        self.made.append(name)
        docker("run", "-d", *words, IMAGE, "serve")
        state = json.loads(docker("inspect", name))[0]
        self.pids[name] = state["State"]["Pid"]
        return state["NetworkSettings"]["Networks"][self.network]["IPAddress"]

    async def start(self):
        for number in range(self.count):
            self.edges.append((f"edge-{number}", await self.serve(f"edge-{number}"), PORT))
        for name, host, port in self.edges:
            await ready(host, port, lambda name=name: docker("logs", "--tail", "20", f"{self.project}-soak-{name}"))

    async def start_whole(self):
        host = await self.serve("whole", CLEAVE_SPLIT_POINT=str(WHOLE))
        await ready(host, PORT, lambda: docker("logs", "--tail", "20", f"{self.project}-soak-whole"))
        return host, PORT

    def addresses(self):
        return self.edges

    # Training.

    def trainer(self, run):
        return f"{self.project}-soak-{run}"

    async def train(self, run, resume):
        settings = {"CLEAVE_TRAIN__STEP_TIMEOUT_S": "2", "CLEAVE_TRAIN__RECONNECT_TIMEOUT_S": "120"}
        words = self.run_words(self.trainer(run), f"{self.project}_soak-runs", settings)
        command = ["docker", "run", "--rm", *words, IMAGE, "train", "--run", run]
        with open(self.work / f"{run}.log", "a") as log:
            return await asyncio.create_subprocess_exec(
                *command, *(["--resume"] if resume else []), stdout=log, stderr=log)

    def kill_training(self, run, _):
        subprocess.run(["docker", "kill", self.trainer(run)], capture_output=True)

    def run_folders(self, run):
        mount = lambda volume: pathlib.Path(
            docker("volume", "inspect", "-f", "{{.Mountpoint}}", f"{self.project}_{volume}"))
        return {"edge": mount("soak-runs") / "edge" / run, "cloud": mount("cloud-runs") / "cloud" / run}

    def training_log(self, run):
        return (self.work / f"{run}.log").read_text()[-1500:]

    # Faults.

    def faults(self):
        return {"cloud killed": self.kill, "cloud paused": self.pause, "cloud disconnected": self.disconnect}

    async def engine(self, *words):
        process = await asyncio.create_subprocess_exec("docker", *words, stdout=subprocess.DEVNULL)
        await process.wait()

    async def kill(self, draw):
        await self.engine("kill", self.clouds[0])
        await asyncio.sleep(draw.uniform(0.2, 3))
        await self.engine("start", self.clouds[0])

    async def pause(self, draw):
        await self.engine("pause", self.clouds[1])
        await asyncio.sleep(draw.uniform(0.5, 4))
        await self.engine("unpause", self.clouds[1])

    async def disconnect(self, draw):
        which = draw.randrange(2)
        await self.engine("network", "disconnect", self.network, self.clouds[which])
        await asyncio.sleep(draw.uniform(0.5, 4))
        await self.engine("network", "connect", "--alias", CLOUDS[which], self.network, self.clouds[which])

    # Memory.

    def resident(self):
        pids = {f"edge-{number}": self.pids[f"{self.project}-soak-edge-{number}"] for number in range(self.count)}
        pids["cloud-1"] = int(docker("inspect", "-f", "{{.State.Pid}}", self.clouds[1]))
        return {name: nodes.resident(pid) for name, pid in pids.items() if os.path.exists(f"/proc/{pid}")}

    def dead(self):
        return [f"{name} has ended" for name, pid in self.pids.items() if not os.path.exists(f"/proc/{pid}")]

    def end(self):
        if self.made:
            subprocess.run(["docker", "rm", "-f", *self.made], capture_output=True)
        subprocess.run(["docker", "volume", "rm", f"{self.project}_soak-runs"], capture_output=True)
