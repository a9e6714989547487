"""From the starts of benches/startup to its tables."""

import statistics
import typing

import nodes
import verdicts
from verdicts import spread

BOTH_READY_MS, BEYOND_WEIGHTS_MB = 300, 30
NODES = ["cloud-node", "edge-node"]
KINDS = ["RssAnon", "RssFile", "Pss", "VmHWM"]
# What the edge logs when it asked before the cloud listened, and is going to try again.
NO_CLOUD = "does not answer"


class Start(typing.NamedTuple):
    """Both nodes, started once."""

    # Until it was ready, by node, and for both.
    ms: dict
    # After one request, bytes by kind, by node.
    memory: dict
    # Bytes of its own stages, by node.
    weights: dict
    split_point: int
    # Whether the edge asked before the cloud listened.
    tried_again: bool


def beyond_mb(starts, node):
    """Resident memory less the node's own weights."""
    return [(start.memory[node]["VmRSS"] - start.weights[node]) / 1e6 for start in starts]


def judged(seen):
    first, starts = next(iter(seen.items()))
    ready = [start.ms["both"] for start in starts]
    return [
        verdicts.judge(f"both nodes ready, {first}", verdicts.NOBODY, ready, "<", BOTH_READY_MS, 0, "ms"),
        *(verdicts.judge(f"resident memory of the {node} beyond its own weights, {model}", verdicts.NOBODY,
                         beyond_mb(starts, node), "≤", BEYOND_WEIGHTS_MB, 1, "MB")
          for model, starts in seen.items() for node in NODES),
    ]


def times_table(seen):
    heads = ["model", "cloud-node, ms", "edge-node, ms", "both, ms", "starts in which the edge found no cloud at first"]
    return verdicts.table(heads, (
        [model, *(spread([start.ms[what] for start in starts], 0) for what in (*NODES, "both")),
         f"{sum(start.tried_again for start in starts)} of {len(starts)}"]
        for model, starts in seen.items()))


def memory_table(seen):
    heads = ["model", "split point", "node", "own weights, MB", "VmRSS, MB", "beyond its weights, MB", *KINDS]
    mb = lambda starts, node, kind: [start.memory[node][kind] / 1e6 for start in starts]
    return verdicts.table(heads, (
        [model, starts[0].split_point, node, f"{starts[0].weights[node] / 1e6:.2f}",
         spread(mb(starts, node, "VmRSS"), 1), spread(beyond_mb(starts, node), 1),
         *(f"{statistics.median(mb(starts, node, kind)):.1f}" for kind in KINDS)]
        for model, starts in seen.items() for node in NODES))


def render(load, seen, bars):
    first, starts = next(iter(seen.items()))
    lines = [
        "# Start and memory", "",
        f"`benches/startup`: {nodes.machine()}; load average at the beginning {load:.1f}.", "",
        f"{len(starts)} starts of each model, in turns, after one that does not count. Both nodes are started at the "
        "same moment, without certificates, and asked every millisecond from then on: the cloud for its health over "
        "gRPC, the edge for `/v2/health/ready`. Whoever asks has the same cores. Each node's time counts from its own "
        "start, that of both from the first start to the last answer. Medians, the least and the most.", "",
        f"{first} is served by the default configuration, across `5g-midband`: the edge is ready when it has agreed "
        "with the cloud, which takes several round trips of that link. Where it asks before the cloud listens, it asks "
        "again later.", "",
        *times_table(seen), "",
        "Memory 2.5 s after one request of one sample, when what was kept of it is given back, as `/proc/PID/status` and, "
        "for Pss, `smaps_rollup` have it; MB are 10⁶ bytes. RssFile is mapped files, first of all the program's own text, "
        "of which the part that has been used counts in VmRSS; VmHWM is the most that VmRSS has been. A node's own weights "
        "are those of its stages, in FP32. They are made from the seed, in memory, so that they are in RssAnon.", "",
        *memory_table(seen), "",
        *verdicts.bars(bars),
    ]
    return "\n".join(lines) + "\n"
