"""Split inference: Cleave's nodes, PyTorch with grpcio, and the unsplit model in one process, in turns."""

import contextlib
import json
import pathlib
import sys
import tempfile
import typing

import nodes
import verdicts
from throughput_parts import peer, report
from throughput_parts.rounds import Cut, errors, median, ratios, take_turns

MODELS = [Cut("lenet", 4), Cut("mobilenetv2", 8)]
MIN_OF_TORCH, MIN_OF_WHOLE = 3.0, 0.9
# Intra-op threads of PyTorch that are tried, and rounds of that.
THREADS, TRIALS = (1, 2), 3
# A request is one thread's work, and there are as many threads as cores: so most are answered, split or not.
CONFIG = """split_point = {split_point}
model = "{model}"
[link]
profile = "none"
[edge]
threads = 2
kernel_threads = 1
# What is measured is how many are answered, not how soon.
deadline_ms = 60000
micro_batch = {micro_batch}
"""
# Samples of the clients' requests that share a head and a call, where that is tried.
MICRO_BATCH = 16
CLOUD = ["cloud.threads=2", "cloud.kernel_threads=1"]


class Cleave:
    """Both nodes; each request by itself, as it is by default, or up to so many samples together."""

    def __init__(self, options, load, work, cut, ends, micro_batch=1):
        self.load, self.clients = load, options.clients
        work = work / f"micro-batch-{micro_batch}"
        work.mkdir()
        cloud = nodes.Cloud(options.edge_node, work, f'model="{cut.model}"', *CLOUD)
        ends.callback(cloud.end)
        self.edge = nodes.Edge(options.edge_node, work, cloud, [])
        ends.callback(self.edge.end)
        self.edge.configure(CONFIG.format(**cut._asdict(), micro_batch=micro_batch))
        self.edge.start()
        self.edge.metadata()

    def run(self, seconds):
        return self.load.run(seconds, "clients", "--port", self.edge.grpc, "--clients", self.clients)


class InProcess:
    """The unsplit model by the same configuration, without a network."""

    def __init__(self, load, clients, edge):
        self.load, self.clients, self.edge = load, clients, edge

    def run(self, seconds):
        words = ["--config", self.edge.file, *nodes.flags(self.edge.sets), "--clients", self.clients]
        return self.load.run(seconds, "in-process", *words)


class Row(typing.NamedTuple):
    """One model; what was seen of each contender, round by round."""

    cut: Cut
    cleave: list
    gathered: list
    torch: list
    whole: list
    # Versions, threads, and answers a second by number of threads.
    told: dict
    threads: int
    tried: dict


def check_alike(cleave, torch, cut):
    """The same work is the same parameters, and as many bytes at the cut."""
    own = json.loads(cleave.edge.run("inspect", "--json"))
    expected = {"parameters": own["parameters"], "activation_bytes": own["cuts"][cut.split_point]["bytes"]}
    for what, value in expected.items():
        if torch.told[what] != value:
            sys.exit(f"{cut.model} at {cut.split_point}: {what}: Cleave has {value}, PyTorch {torch.told[what]}")


def best_torch(options, load, work, cut, ends):
    """The peer with the number of threads that gives most answers, and what each number gave."""
    peers = [peer.Torch(load, options.clients, work, cut, threads, ends) for threads in THREADS]
    seen = take_turns(peers, TRIALS, options.seconds)
    tried = {one.threads: median(rounds, "requests_per_s") for one, rounds in zip(peers, seen)}
    best = max(peers, key=lambda one: tried[one.threads])
    for one in peers:
        if one is not best:
            one.end()
    return best, tried


def measure_cut(options, load, cut, say):
    with tempfile.TemporaryDirectory(prefix="cleave-throughput-") as work, contextlib.ExitStack() as ends:
        work = pathlib.Path(work)
        torch, tried = best_torch(options, load, work, cut, ends)
        cleave = Cleave(options, load, work, cut, ends)
        gathered = Cleave(options, load, work, cut, ends, MICRO_BATCH)
        check_alike(cleave, torch, cut)
        contenders = [cleave, gathered, torch, InProcess(load, options.clients, cleave.edge)]
        row = Row(cut, *take_turns(contenders, options.rounds, options.seconds), torch.told, torch.threads, tried)
        rates = ", ".join(map(report.rate, [row.cleave, row.gathered, row.torch, row.whole]))
        say(f"{cut.model}: requests/s of Cleave, in micro-batches, PyTorch, in process: {rates}")
        return row


def to(others, row):
    """Answers of ours over those of others: each request by itself, and in micro-batches."""
    return [ratios(ours, others, "requests_per_s") for ours in (row.cleave, row.gathered)]


def judged(options, rows):
    for row in rows:
        name = f"{options.clients} clients, {row.cut.model}"
        peers = [("PyTorch and grpcio", row.torch, MIN_OF_TORCH), ("the unsplit model in process", row.whole, MIN_OF_WHOLE)]
        for peer_name, others, bar in peers:
            for how, found in zip(["", ", in micro-batches"], to(others, row)):
                yield verdicts.judge(f"{name}{how}: requests/s", peer_name, found, "≥", bar)
        yield report.no_errors(name, errors(row.cleave, row.gathered, row.torch, row.whole))


def cells(row):
    seen = [row.cleave, row.gathered, row.torch, row.whole]
    shown = [text for one in seen for text in (report.rate(one), report.latency(one))]
    compared = [verdicts.spread(found) for others in (row.torch, row.whole) for found in to(others, row)]
    return [row.cut.model, row.cut.split_point, *shown, *compared]


def threads_line(row):
    tried = ", ".join(f"with {threads} {rate:.1f}" for threads, rate in row.tried.items())
    return f"{row.cut.model}: {row.threads} intra-op thread{'s' if row.threads > 1 else ''} (requests/s {tried})."


def render(options, rows, bars):
    told = rows[0].told
    heads = ["model", "split point", "Cleave, requests/s", "p50 / p99 ms", "in micro-batches, requests/s",
             "p50 / p99 ms", "PyTorch, requests/s", "p50 / p99 ms", "in process, requests/s", "p50 / p99 ms",
             "Cleave ÷ PyTorch", "micro-batches ÷ PyTorch", "Cleave ÷ in process", "micro-batches ÷ in process"]
    lines = [
        "# Throughput of split inference", "",
        f"`benches/throughput`: {nodes.machine()}; PyTorch {told['torch']} on the CPU, grpcio {told['grpcio']}.", "",
        f"{options.clients} clients that each wait for their answer, one sample a request, everything together on two "
        f"cores. Medians of {options.rounds} rounds of {options.seconds:g} s in which the contenders take turns; the "
        "ratios are of the same round, median and range: above 1, Cleave answers more. The clients are one program, "
        "the same for Cleave and for PyTorch. They, the edge and the cloud share the cores; in process there is "
        "neither network nor client.", "",
        f"PyTorch's edge and cloud are two Python processes with grpcio's server on {told['workers']} threads, eager, "
        "in inference mode; an activation crosses as its bare bytes. Both sides have as many parameters and as many "
        "bytes at the cut. The weights are not shared: they are random on either side. Cleave's cloud computes "
        f"each request by itself, as it does by default; in micro-batches (`edge.micro_batch = {MICRO_BATCH}`), the edge "
        "computes the heads of requests that wait together, and they cross in one call. Of 1 and 2 intra-op threads PyTorch "
        "has the better:", "",
    ]
    lines += [f"- {threads_line(row)}" for row in rows] + [""]
    lines += verdicts.table(heads, map(cells, rows)) + [""]
    return "\n".join(lines + verdicts.bars(bars)) + "\n"


def measure(options, load, say):
    """The report, and its verdicts."""
    rows = [measure_cut(options, load, cut, say) for cut in options.models or MODELS]
    bars = list(judged(options, rows))
    return render(options, rows, bars), bars
