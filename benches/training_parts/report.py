"""From the rounds of benches/training to its report."""

import statistics

import nodes
from training_parts.plan import BATCH, THREADS
from verdicts import bars, judge, spread, table

MAX_OF_WHOLE, MIN_OF_TORCH = 1.10, 2.0


def ratios(row, above, below):
    """Of the same rounds."""
    return [one / other for one, other in zip(row.times[above], row.times[below])]


def judged(rows):
    for row in rows:
        step = f"{row.plan.model}, split training step, batch {BATCH}"
        whole, torch = ratios(row, "split", "whole"), ratios(row, "tcp", "split")
        yield judge(f"{step}: time", "the unsplit step in one process", whole, "≤", MAX_OF_WHOLE)
        yield judge(f"{step}: speed", "PyTorch's RPC over TCP", torch, "≥", MIN_OF_TORCH)


def ms(values):
    return spread(values, 2 if statistics.median(values) < 100 else 0)


def step_cells(row):
    times = [ms(row.times[name]) for name in ("split", "whole", "tcp", "any")]
    compared = [("split", "whole"), ("tcp", "split"), ("any", "split")]
    return [row.plan.model, row.plan.split_point, *times, *(spread(ratios(row, *pair)) for pair in compared)]


def part_cells(row):
    return [row.plan.model, *map(ms, row.parts.values())]


def threads_line(row):
    tried = ", ".join(f"with {threads} {took:.2f} ms" for threads, took in row.tried.items())
    return f"- {row.plan.model}: {row.threads} intra-op thread{'s' if row.threads > 1 else ''} ({tried})."


def how(options, rows):
    counted = ", ".join(f"{row.plan.taken() - row.plan.warm_up} of {row.plan.model}" for row in rows)
    return [
        f"SGD with batches of {BATCH}, in FP32, everything on the same two cores. {options.rounds} rounds in which the "
        f"contenders take turns; the time of a round is the median of its steps ({counted}, after a few that do not "
        "count). Below are medians of the rounds, least and most in brackets; ratios are of the same round.", "",
        "* Cleave, split: `edge-node train` and a cloud over loopback, link `none`, one micro-batch. A step is from "
        "the head's forward pass to that of the next one: the next batch, the update and the lines that a run writes "
        "for each step are in it, validations and checkpoints are not.",
        "* Cleave, unsplit: forward, loss, backward and SGD of the whole model in one process "
        "(`shared/examples/passes`), with its batch at hand.",
        "* PyTorch: the head in one process, tail and loss in another; an RPC for the loss, distributed autograd's "
        "backward pass, the distributed optimiser's step, as in PyTorch's own RPC tutorials; its batch at hand. Over "
        "TCP, as Cleave and as between two machines, and with what PyTorch takes between processes of one machine, "
        "which is shared memory. The bar is against the first.", "",
        "All have as many parameters, as many bytes at the cut and the same output; weights are random on either side. "
        f"Each of Cleave's processes computes with {THREADS} threads. Of 1 and 2 intra-op threads PyTorch has the "
        "better:", "",
        *map(threads_line, rows), "",
    ]


def render(options, load, rows, verdicts):
    heads = ["model", "split point", "Cleave, split, ms", "Cleave, unsplit, ms", "PyTorch over TCP, ms",
             "PyTorch over shared memory, ms", "split ÷ unsplit", "PyTorch over TCP ÷ Cleave",
             "PyTorch over shared memory ÷ Cleave"]
    lines = [
        "# The split training step", "",
        f"`benches/training`: {nodes.machine()}; load average at the beginning {load:.1f}; PyTorch "
        f"{rows[0].told['torch']} on the CPU.", "",
        *how(options, rows),
        *table(heads, map(step_cells, rows)), "",
        "Where Cleave's split step goes, ms. Head and tail are forward and backward passes; link is what was under "
        "way; the rest is updates, batches, records, and waiting.", "",
        *table(["model", *rows[0].parts], map(part_cells, rows)), "",
        *bars(verdicts),
    ]
    return "\n".join(lines) + "\n"
