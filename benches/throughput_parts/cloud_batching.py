"""Many edges of a cloud that runs their requests one at a time, and of one that runs those that wait together."""

import contextlib
import pathlib
import tempfile
import typing

import nodes
import verdicts
from throughput_parts import report
from throughput_parts.rounds import Cut, errors, ratios, take_turns

# Dense layers, whose weights a batch reads once; convolutions; and a tail so small that the calls are most of it.
MODELS = [Cut("alexnet", 8), Cut("mobilenetv2", 8), Cut("lenet", 4)]
MIN_THROUGHPUT, MAX_P99 = 4.0, 2.0
CONFIG = """split_point = {split_point}
model = "{model}"
[link]
profile = "none"
[edge]
# What is measured is how many are answered, and how soon, not how many are refused.
deadline_ms = 60000
"""
CLOUD = ["cloud.threads=2", "cloud.kernel_threads=1"]
ALONE = ["cloud.max_batch=1", "cloud.batch_delay_ms=0"]
TOGETHER = ["cloud.max_batch=32", "cloud.batch_delay_ms=2"]


class CloudOf:
    """A cloud with these settings, and the edges that ask it."""

    def __init__(self, options, load, work, cut, sets, ends):
        self.load, self.edges = load, options.edges
        work.mkdir()
        self.cloud = nodes.Cloud(options.edge_node, work, f'model="{cut.model}"', *CLOUD, *sets)
        ends.callback(self.cloud.end)
        self.config, self.sets = work / "edges.toml", [f"runs.dir={work / 'runs'}"]
        nodes.write(self.config, CONFIG.format(**cut._asdict()))

    def run(self, seconds):
        words = ["--port", self.cloud.port, "--edges", self.edges, "--config", self.config, *nodes.flags(self.sets)]
        return self.load.run(seconds, "edges", *words)


class Row(typing.NamedTuple):
    """One model; what was seen of each cloud, round by round."""

    cut: Cut
    alone: list
    together: list


def measure_cut(options, load, cut, say):
    with tempfile.TemporaryDirectory(prefix="cleave-batching-") as work, contextlib.ExitStack() as ends:
        clouds = [CloudOf(options, load, pathlib.Path(work) / name, cut, sets, ends)
                  for name, sets in (("alone", ALONE), ("together", TOGETHER))]
        row = Row(cut, *take_turns(clouds, options.rounds, options.seconds))
        say(f"{cut.model}: requests/s {report.rate(row.alone)} one at a time, {report.rate(row.together)} together")
        return row


def throughput(row):
    return ratios(row.together, row.alone, "requests_per_s")


def p99(row):
    return ratios(row.together, row.alone, "p99_ms")


def judged(options, rows):
    for row in rows:
        name = f"batching of {options.edges} edges, {row.cut.model}"
        yield verdicts.judge(f"{name}: requests/s", "one at a time", throughput(row), "≥", MIN_THROUGHPUT)
        yield verdicts.judge(f"{name}: p99", "one at a time", p99(row), "≤", MAX_P99)
        yield report.no_errors(name, errors(row.alone, row.together))


def cells(row):
    shown = [text for seen in (row.alone, row.together) for text in (report.rate(seen), report.latency(seen))]
    return [row.cut.model, row.cut.split_point, *shown, verdicts.spread(throughput(row)), verdicts.spread(p99(row))]


def render(options, rows, bars):
    heads = ["model", "split point", "one at a time, requests/s", "p50 / p99 ms", "together, requests/s",
             "p50 / p99 ms", "requests/s, ratio", "p99, ratio"]
    words = lambda settings: ", ".join(f"`{setting}`" for setting in settings)
    lines = [
        "# Batching in the cloud", "",
        f"`benches/throughput --batching`: {nodes.machine()}.", "",
        f"{options.edges} edges that each wait for their answer, one sample a request, over a connection of their "
        "own. What they send was computed beforehand, so that no head takes time. One cloud runs each request by "
        f"itself ({words(ALONE)}), the other those that wait together ({words(TOGETHER)}), both with {words(CLOUD)}. "
        "Edges and cloud share two cores. The first answer of each edge is compared with the unsplit model's output.",
        "",
        f"Medians of {options.rounds} rounds of {options.seconds:g} s in which the clouds take turns; the ratios are "
        "those of the same round, median and range.", "",
    ]
    lines += verdicts.table(heads, map(cells, rows)) + [""]
    return "\n".join(lines + verdicts.bars(bars)) + "\n"


def measure(options, load, say):
    """The report, and its verdicts."""
    rows = [measure_cut(options, load, cut, say) for cut in options.models or MODELS]
    bars = list(judged(options, rows))
    return render(options, rows, bars), bars
