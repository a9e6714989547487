"""The rounds of one model, in which the contenders take turns."""

import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import typing

from training_parts.contenders import Split, Torch, Whole
from training_parts.plan import BATCH, Plan
from turns import turns

# Intra-op threads of PyTorch that are tried, and rounds of that.
THREADS, TRIALS = (1, 2), 2


class Row(typing.NamedTuple):
    """One model: the median of each round by contender, ms, and of the split step by part."""

    plan: Plan
    times: dict
    parts: dict
    # What PyTorch says of itself, and its step by number of threads, ms.
    told: dict
    threads: int
    tried: dict


def take_turns(contenders, count):
    """The median of each round, ms, by contender."""
    seen = {name: [] for name in contenders}
    for order in turns(contenders, count):
        for name in order:
            seen[name].append(statistics.median(contenders[name].turn()))
    return seen


def best_threads(plan, work):
    """With how many threads PyTorch is quickest, and what each number took."""
    with contextlib.ExitStack() as ends:
        tried = take_turns({threads: Torch(plan, "tcp", threads, work, ends) for threads in THREADS}, TRIALS)
    tried = {threads: statistics.median(times) for threads, times in tried.items()}
    return min(tried, key=tried.get), tried


def check_alike(split, whole, torch):
    """The same work is the same parameters, as many bytes at the cut, and the same output."""
    plan, own = split.plan, json.loads(split.edge.run("inspect", "--json"))
    activation = BATCH * own["cuts"][plan.split_point]["bytes"]
    expected = {"parameters": own["parameters"], "activation_bytes": activation, "output": whole.output}
    for what, value in expected.items():
        if torch.told[what] != value:
            sys.exit(f"{plan.model} at {plan.split_point}: {what}: Cleave has {value}, PyTorch {torch.told[what]}")


def measure(options, plan, say):
    with tempfile.TemporaryDirectory(prefix="cleave-training-") as work, contextlib.ExitStack() as ends:
        work = pathlib.Path(work)
        threads, tried = best_threads(plan, work)
        split, whole = Split(options, plan, work, ends), Whole(options, plan, work, ends)
        torch = {transport: Torch(plan, transport, threads, work, ends) for transport in ("tcp", "any")}
        check_alike(split, whole, torch["tcp"])
        times = take_turns({"split": split, "whole": whole, **torch}, options.rounds)
        say(f"{plan.model}, ms: " + ", ".join(f"{name} {statistics.median(ms):.2f}" for name, ms in times.items()))
        return Row(plan, times, split.parts, torch["tcp"].told, threads, tried)
