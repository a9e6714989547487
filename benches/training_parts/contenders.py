"""Those who take steps: Cleave's two nodes, the unsplit model in one process, and two processes of PyTorch.

Each has `turn`, which gives what steps took, ms, without the first ones.
"""

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys

import nodes
from throughput_parts import peer
from training_parts.plan import BATCH, CLOUD, THREADS, write_images

TORCH_RPC = pathlib.Path(__file__).resolve().parent / "torch_rpc.py"
# Where a step's time goes, by the names of metrics.jsonl.
PARTS = {"head": "head_ms", "link": "link_ms", "tail": "tail_ms"}


def start(command, log, ends, **more):
    """A process that is killed at the end, whatever comes before."""
    with open(log, "a") as errors:
        process = subprocess.Popen(list(map(str, command)), stderr=errors, text=True, **more)

    def end():
        # A process that stands still is ended too.
        process.kill()
        process.wait()

    ends.callback(end)
    return process


class Driven:
    """Tells what it trains, then takes as many steps as it is told and says what each took."""

    def __init__(self, plan, command, log, ends, **more):
        self.plan, self.log = plan, log
        self.process = start(command, log, ends, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more)
        self.told = self.read()

    def read(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else sys.exit(f"{self.process.args} ended: {self.log.read_text()[-2000:]}")

    def turn(self):
        print(self.plan.taken(), file=self.process.stdin, flush=True)
        return self.read()[self.plan.warm_up:]


class Whole(Driven):
    """The unsplit model: shared/examples/passes."""

    def __init__(self, options, plan, work, ends):
        command = [options.passes.resolve(), plan.model, BATCH, 1, "step"]
        super().__init__(plan, command, work / "passes.log", ends)
        self.output = self.told


class Torch(Driven):
    """Both processes of torch_rpc.py, with so many intra-op threads each."""

    def __init__(self, plan, transport, threads, work, ends):
        (port,) = nodes.free_ports(1)
        log = work / f"torch-{transport}-{threads}.log"
        words = [port, transport, plan.model, plan.split_point, BATCH, threads]
        command = lambda role: [peer.python(), "-B", TORCH_RPC, role, *words]
        # Without the first, RPC finds its way by the name of the machine.
        env = os.environ | {"TP_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": str(threads)}
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self.tail = start(command("tail"), log, ends, env=env, **quiet)
        super().__init__(plan, command("head"), log, ends, env=env)
        self.tell(signal.SIGSTOP)

    def tell(self, what):
        for process in (self.process, self.tail):
            process.send_signal(what)

    def turn(self):
        """Out of turn both stand still: RPC's shared memory is polled even while nothing is asked."""
        self.tell(signal.SIGCONT)
        times = super().turn()
        self.tell(signal.SIGSTOP)
        return times


class Split:
    """A cloud that stays up, and a run of training for each turn."""

    def __init__(self, options, plan, work, ends):
        self.plan, self.runs = plan, work / "runs"
        cloud = nodes.Cloud(options.edge_node, work, f'model="{plan.model}"', *CLOUD)
        ends.callback(cloud.end)
        self.edge = nodes.Edge(options.edge_node, work, cloud, [])
        self.edge.configure(plan.config(**self.data(work)))
        self.turns = 0
        # Medians of each turn, by part.
        self.parts = {part: [] for part in [*PARTS, "rest"]}

    def data(self, work):
        """Prepared images are not decoded in a step."""
        if self.plan.image is None:
            return {"kind": "digits"}
        images = work / "images"
        write_images(images, self.plan)
        self.edge.configure(self.plan.config(kind="images", path=images))
        self.edge.run("prepare", "--run", "images")
        shutil.rmtree(images)
        return {"kind": "prepared", "path": self.runs / "edge/images/data"}

    def turn(self):
        self.turns += 1
        run = f"turn-{self.turns}"
        self.edge.run("train", "--run", run, "--no-deploy")
        steps = self.steps(self.runs / "edge" / run)[self.plan.warm_up:]
        for folder in self.runs.glob(f"*/{run}"):
            shutil.rmtree(folder)
        for part, medians in self.parts.items():
            medians.append(statistics.median(step[part] for step in steps))
        return [step["whole"] for step in steps]

    def steps(self, folder):
        """A step is from its head's forward pass to that of the next one, so that all is in it that a run does: the
        next batch, the update, and the lines that are written for each step."""
        lines = [line for line in read_lines(folder / "metrics.jsonl") if line["kind"] == "step"]
        begun = {line["step"]: forward_began(line) for line in read_lines(folder / "timeline.jsonl")}
        self.check(lines, begun)
        # Between two epochs there is a validation, and the last batch of one may be smaller.
        return [step_of(line, begun[after["step"]] - begun[line["step"]])
                for line, after in zip(lines, lines[1:]) if after["epoch"] == line["epoch"]]

    def check(self, lines, begun):
        """As many steps as there are batches of that size in the data, none in parts."""
        due = range(1, self.plan.epochs * self.plan.steps_per_epoch + 1)
        taken = [line["step"] for line in lines]
        if taken != list(due) or list(begun) != taken or any(line["micro_batches"] != 1 for line in lines):
            text = f"{len(taken)} steps, {len(begun)} of them timed, where {len(due)} whole ones of {BATCH} were due"
            sys.exit(f"{self.plan.model}: {text}")


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def forward_began(line):
    """ms since the run began"""
    return next(span["start_ms"] for span in line["spans"] if span["lane"] == "head-forward")


def step_of(line, whole):
    parts = {part: line[key] for part, key in PARTS.items()}
    return {"whole": whole, **parts, "rest": whole - sum(parts.values())}
