"""What an edge costs its cloud: both nodes' real programs on this machine, one cloud and more and more edges."""

import asyncio
import json
import os
import pathlib
import statistics
import tempfile
import time
import urllib.request

import nodes
from soak_parts.client import Client, images

# The link is simulated later: here nothing but the machine takes time.
CONFIG = """split_point = 4
model = "lenet"
[link]
profile = "none"
[edge]
threads = 1
kernel_threads = 1
"""
CLOUD = ['model="lenet"', "cloud.threads=2", "cloud.kernel_threads=1"]
# Requests until tails are built and buffers have their size: of the first edge, then of each further one.
WARM_UP, GREETINGS = 200, 5
SETTLE_S = 2.0
# The least that a measured distribution of times is described by.
QUANTILES = 100


def processor_s(pid):
    """User and system time of a process, s (proc(5): fields 14 and 15, counted after the name)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
        return reply.read().decode()


def total(text, name, label=""):
    """The sum of a metric over what has this label."""
    lines = (line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if label in line)


class Load:
    """Requests to all edges, and the times in the cloud that their answers tell."""

    def __init__(self, edges):
        self.clients = [Client("127.0.0.1", edge.http) for edge in edges]
        self.bodies = images()
        self.asked, self.tail_ms = 0, []

    async def one(self, number):
        body = self.bodies[self.asked % len(self.bodies)]
        self.asked += 1
        status, answer = await self.clients[number].exchange(body)
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {answer.decode(errors='replace')[:300]}")
        self.tail_ms.append(json.loads(answer)["parameters"]["tail_ms"])

    async def some(self, number, count):
        for _ in range(count):
            await self.one(number)

    async def each(self, seconds, every_s):
        """A client of each edge, for so long: one request in every so many seconds, or one after the other if that
        is 0. Gives how many were answered in a second."""
        self.asked, self.tail_ms = 0, []
        begin = time.monotonic()

        async def client(number):
            due = begin + every_s * number / len(self.clients)
            while due < begin + seconds and time.monotonic() < begin + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self.one(number)
                due += every_s

        await asyncio.gather(*(client(number) for number in range(len(self.clients))))
        return self.asked / (time.monotonic() - begin)

    def close(self):
        for client in self.clients:
            client.close()


class Fleet:
    """A cloud and its edges, each with a folder and a configuration file of its own."""

    def __init__(self, edge_node, work):
        self.edge_node, self.work, self.edges = edge_node, work, []
        (self.metrics,) = nodes.free_ports(1)
        self.cloud = nodes.Cloud(edge_node, work, *CLOUD, f"cloud.metrics_listen=127.0.0.1:{self.metrics}")

    def add(self):
        """Another edge, when the one before has its ports."""
        number = len(self.edges)
        folder = self.work / f"edge-{number}"
        folder.mkdir()
        edge = nodes.Edge(self.edge_node, folder, self.cloud, [])
        self.edges.append(edge)
        edge.configure(CONFIG)
        edge.start()
        edge.metadata()

    def carried(self):
        """Bytes of all edges so far, up and down."""
        texts = [scrape(edge.http) for edge in self.edges]
        return [
            sum(total(text, "cleave_link_accepted_bytes_total", 'direction="uplink"') for text in texts),
            sum(total(text, "cleave_link_delivered_bytes_total", 'direction="downlink"') for text in texts),
        ]

    def computed_s(self):
        return total(scrape(self.metrics), "cleave_compute_seconds_sum")

    def end(self):
        for edge in self.edges:
            edge.end()
        self.cloud.end()


async def run(fleet, load, seconds, every_s):
    """Requests for so long; what each took of the cloud."""
    pid = fleet.cloud.process.pid
    computed, carried, used = fleet.computed_s(), fleet.carried(), processor_s(pid)
    per_s = await load.each(seconds, every_s)
    used = processor_s(pid) - used
    up, down = (after - before for before, after in zip(carried, fleet.carried()))
    computed = fleet.computed_s() - computed
    tail = sorted(load.tail_ms)
    at = lambda share: tail[min(len(tail) - 1, int(share * len(tail)))]
    return {
        "requests": load.asked, "per_s": per_s, "cloud_s": used / load.asked, "compute_s": computed / load.asked,
        "up_bytes": up / load.asked, "down_bytes": down / load.asked,
        "tail_ms": {"mean": statistics.mean(tail), "p50": at(0.5), "p99": at(0.99)},
        "tail_ms_quantiles": [at((step + 0.5) / QUANTILES) for step in range(QUANTILES)],
    }


async def level(options, work, count):
    """One cloud with so many edges."""
    fleet = Fleet(options.edge_node, work)
    try:
        pid = fleet.cloud.process.pid
        fleet.add()
        load = Load(fleet.edges)
        await load.some(0, WARM_UP)
        load.close()
        first = nodes.resident(pid)
        for _ in range(count - 1):
            fleet.add()
        load = Load(fleet.edges)
        for number in range(count):
            await load.some(number, GREETINGS)
        await asyncio.sleep(SETTLE_S)
        resident = nodes.resident(pid)
        edges = [edge.process.pid for edge in fleet.edges]
        used, edges_used = processor_s(pid), sum(map(processor_s, edges))
        await asyncio.sleep(options.idle_seconds)
        used, edges_used = processor_s(pid) - used, sum(map(processor_s, edges)) - edges_used
        seen = {
            "edges": count, "resident_bytes": resident,
            "bytes_per_edge": (resident - first) / (count - 1) if count > 1 else None,
            "idle_cores_per_edge": used / options.idle_seconds / count,
            "edge_idle_cores": edges_used / options.idle_seconds / count,
            "edge_resident_bytes": statistics.mean(map(nodes.resident, edges)),
            "paced": await run(fleet, load, options.paced_seconds, count / options.pace),
            "busy": await run(fleet, load, options.busy_seconds, 0.0),
        }
        load.close()
        return seen
    finally:
        fleet.end()


def measure(options, say):
    levels = []
    for count in options.edges:
        with tempfile.TemporaryDirectory(prefix="cleave-scaling-") as work:
            levels.append(asyncio.run(level(options, pathlib.Path(work), count)))
        seen = levels[-1]
        say(f"{count} edges: {seen['paced']['cloud_s'] * 1e6:.0f} µs of the cloud's processors for a request")
    return {"where": nodes.machine(), "pace": options.pace, "idle_seconds": options.idle_seconds, "levels": levels}
