"""Clients that others wrote, unchanged, against real nodes: stock_clients.py FOLDER_OF_NODES PERF_ANALYZER

NVIDIA's perf_analyzer over gRPC and HTTP, with one to four requests at a time, compares every answer with what
tritonclient got. The clients of the kserve package, over both, have to get the same bits. Prints a line for each
check, and exits with 1 at the first that fails. Needs tritonclient[http] and kserve: both have the protocol's
messages under the same names, so only one of them can be the one for gRPC.
"""

import asyncio
import csv
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import httpx
import numpy
import tritonclient.http as triton
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
BIN, PERF_ANALYZER = (Path(argument).resolve() for argument in sys.argv[1:3])
MODEL, INPUT, OUTPUT = "digits", "input", "logits"
PATIENCE_S = 60
GRPC, HTTP = ["-i", "grpc"], ["-i", "http"]
JSON = ["--input-tensor-format", "json", "--output-tensor-format", "json"]
# What perf_analyzer sends: samples, one by one, whose answers it compares, or what it makes itself.
COMPARED, ZERO, RANDOM = "compared", "zero", "random"
UP_TO_FOUR, FOUR = range(1, 5), [4]
LOADS = {
    "gRPC": (COMPARED, UP_TO_FOUR, GRPC),
    "gRPC, asynchronous": (COMPARED, FOUR, [*GRPC, "--async"]),
    "gRPC, streams": (COMPARED, FOUR, [*GRPC, "--async", "--streaming"]),
    "gRPC, batches of 4": (RANDOM, FOUR, [*GRPC, "-b", "4"]),
    "HTTP": (COMPARED, UP_TO_FOUR, HTTP),
    "HTTP, asynchronous": (COMPARED, FOUR, [*HTTP, "--async"]),
    "HTTP, JSON": (COMPARED, FOUR, [*HTTP, *JSON]),
    "HTTP, batches of 4": (RANDOM, FOUR, [*HTTP, "-b", "4"]),
    "HTTP, zeros": (ZERO, FOUR, HTTP),
}
# Requests of each concurrency, in windows if there are several of them.
REQUESTS, WINDOWS = 100, 3
PERF_S = 180


def check(what, ok, found=""):
    if not ok:
        sys.exit(f"FAILED {what}: {found}")
    print(f"ok {what}", flush=True)


class Nodes:
    """A cloud and an edge with the default configuration, but no simulated link."""

    def __init__(self, work):
        cloud, self.grpc, self.http = (f"127.0.0.1:{port}" for port in free_ports(3))
        settings = [f"cloud.listen={cloud}", f"edge.cloud=http://{cloud}", f"runs.dir={work / 'runs'}",
                    f"edge.grpc_listen={self.grpc}", f"edge.http_listen={self.http}", "link.profile=none"]
        flags = [word for setting in settings for word in ("--set", setting)]
        self.started, self.logs = [], []
        for node in ("cloud-node", "edge-node"):
            self.logs.append(work / f"{node}.log")
            command = [BIN / node, "serve", "--config", ROOT / "config/cleave.toml", *flags]
            with self.logs[-1].open("w") as log:
                self.started.append(subprocess.Popen(command, stdout=log, stderr=log))

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}/v2/{path}", timeout=10) as reply:
            return json.load(reply)

    def wait(self):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                return self.get("health/ready")
            except OSError:
                time.sleep(0.1)
        sys.exit(f"FAILED the edge is ready: not within {PATIENCE_S} s")

    def counts(self):
        """Requests that were answered, and that were not, since the edge began."""
        (model,) = self.get("models/stats")["model_stats"]
        stats = model["inference_stats"]
        return stats["success"]["count"], stats["fail"]["count"]

    def stop(self):
        for process in self.started:
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def references(address):
    """Batches of 1 and 4, and what tritonclient is answered, as raw bytes both ways."""
    random, found = numpy.random.default_rng(7), []
    with triton.InferenceServerClient(address) as client:
        for batch in (1, 1, 1, 4):
            values = random.random((batch, 1, 8, 8), dtype=numpy.float32)
            tensor = triton.InferInput(INPUT, list(values.shape), "FP32")
            tensor.set_data_from_numpy(values, binary_data=True)
            found.append((values, client.infer(MODEL, [tensor]).as_numpy(OUTPUT)))
    return found


def perf_data(path, found):
    """Samples that perf_analyzer sends in turn, and the answers that it compares."""
    alone = [(values, answers) for values, answers in found if len(values) == 1]
    listed = {"data": [{INPUT: values.ravel().tolist()} for values, _ in alone],
              "validation_data": [{OUTPUT: answers.ravel().tolist()} for _, answers in alone]}
    path.write_text(json.dumps(listed))
    return path


def perf(nodes, data, concurrencies, way, table):
    address = nodes.grpc if "grpc" in way else nodes.http
    command = [PERF_ANALYZER, "-m", MODEL, "-u", address, *way, "--input-data", data, "-f", table]
    if len(concurrencies) == 1:
        command += ["--concurrency-range", str(concurrencies[0]), "--request-count", str(REQUESTS)]
    else:
        # Whether the windows agree says something of this machine only: any do.
        command += ["--concurrency-range", f"{concurrencies[0]}:{concurrencies[-1]}", "-s", "999", "-r", str(WINDOWS),
                    "--measurement-mode", "count_windows", "--measurement-request-count", str(REQUESTS // WINDOWS)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PERF_S)


def check_load(what, outcome, concurrencies, table):
    check(f"{what}: no error", outcome.returncode == 0, outcome.stdout)
    with table.open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["Concurrency"]))
    found = [int(row["Concurrency"]) for row in rows]
    check(f"{what}: at concurrency {found}", found == list(concurrencies), outcome.stdout)
    rates = [float(row["Inferences/Second"]) for row in rows]
    check(f"{what}: a throughput over 0", min(rates) > 0, rates)
    # It reads this from the edge's statistics.
    computing = [int(row["Server Compute Infer"]) for row in rows]
    check(f"{what}: computing took {computing} µs", min(computing) > 0, outcome.stdout)


def check_loads(nodes, found, work):
    data, table = perf_data(work / "data.json", found), work / "table.csv"
    for name, (sent, concurrencies, way) in LOADS.items():
        what, before = f"perf_analyzer, {name}", nodes.counts()
        outcome = perf(nodes, data if sent == COMPARED else sent, concurrencies, way, table)
        check_load(what, outcome, concurrencies, table)
        answered, failed = (now - then for now, then in zip(nodes.counts(), before))
        least = len(concurrencies) * (REQUESTS // WINDOWS) * WINDOWS
        check(f"{what}: {answered} answered, {failed} failed", answered >= least and failed == 0, outcome.stdout)
        table.unlink()
    # That it does compare: the last bit of one sample's answers.
    values, answers = found[1]
    changed = [found[0], (values, numpy.nextafter(answers, numpy.float32(numpy.inf))), found[2]]
    data = perf_data(work / "changed.json", changed)
    for way in (GRPC, HTTP):
        outcome = perf(nodes, data, FOUR, way, table)
        noticed = outcome.returncode != 0 and "Output doesn't match expected output" in outcome.stdout
        check(f"perf_analyzer, {way[1]}: notices other bits", noticed, outcome.stdout)


def request(values, binary, answer_binary=None):
    """`answer_binary`: how the answer is asked for; unsaid if None."""
    tensor = InferInput(INPUT, list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    outputs = None if answer_binary is None else [RequestedOutput(OUTPUT, {"binary_data": answer_binary})]
    return InferRequest(MODEL, [tensor], request_id="a", request_outputs=outputs)


def check_answer(what, answer, wanted):
    (output,) = answer.outputs
    named = (answer.model_name, answer.id, output.name) == (MODEL, "a", OUTPUT)
    same = numpy.array_equal(output.as_numpy(), wanted)
    check(f"{what}: the answer of tritonclient", named and same, answer)


async def check_rest(address, found):
    url = f"http://{address}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        check("kserve, REST: live", await client.is_server_live(url) is True)
        check("kserve, REST: ready", await client.is_server_ready(url) is True)
        check("kserve, REST: model ready", await client.is_model_ready(url, MODEL) is True)
        check("kserve, REST: another is not", await client.is_model_ready(url, "cats") is False)
        for values, wanted in found:
            for sent in (False, True):
                for asked in (None, False, True):
                    answer = await client.infer(url, request(values, sent, asked), model_name=MODEL)
                    check_answer(f"kserve, REST: {len(values)}, binary {sent}, answer {asked}", answer, wanted)
        check("kserve, REST: times", answer.parameters["head_ms"] >= 0, answer.parameters)
        try:
            await client.infer(url, request(numpy.zeros((1, 1, 9, 8), numpy.float32), True), model_name=MODEL)
        except httpx.HTTPStatusError as error:
            check("kserve, REST: says what is wrong", "400" in str(error) and INPUT in str(error), error)
        else:
            check("kserve, REST: a wrong shape", False, "it was answered")


async def check_grpc(address, found):
    async with InferenceGRPCClient(address) as client:
        check("kserve, gRPC: live", await client.is_server_live() is True)
        check("kserve, gRPC: ready", await client.is_server_ready() is True)
        check("kserve, gRPC: model ready", await client.is_model_ready(MODEL) is True)
        for values, wanted in found:
            for raw in (False, True):
                answer = await client.infer(request(values, raw))
                check_answer(f"kserve, gRPC: {len(values)}, raw {raw}", answer, wanted)
        # Of the parameters its messages know no floats, which the times are.
        split = answer.parameters["split_point"].int64_param
        check(f"kserve, gRPC: split at {split}", split > 0, answer.parameters)


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        nodes = Nodes(work)
        try:
            nodes.wait()
            found = references(nodes.http)
            asyncio.run(check_rest(nodes.http, found))
            asyncio.run(check_grpc(nodes.grpc, found))
            check_loads(nodes, found, work)
            print("all checks passed")
        except SystemExit:
            for log in nodes.logs:
                print(f"-- {log.name}\n{log.read_text()[-2000:]}", file=sys.stderr)
            raise
        finally:
            nodes.stop()


main()
