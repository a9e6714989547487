"""From the rounds of benches/generation to its tables."""

import statistics

import nodes
import torch
import transformers
import verdicts

from generation_parts.contenders import GENERATE, LOOP, SPLIT, WHOLE
from generation_parts.gpt2 import PROMPT

MIN_OF_TRANSFORMERS = 1.0


def ratios(seen, reference, name):
    """The reference's time over this one's, in each round."""
    return [other.total_ms / own.total_ms for other, own in zip(seen[reference], seen[name])]


def quicker(seen):
    """The way to call transformers that takes less time."""
    return min((GENERATE, LOOP), key=lambda name: statistics.median(one.total_ms for one in seen[name]))


def judged(seen):
    reference = quicker(seen)
    speeds = ratios(seen, reference, SPLIT)
    what = f"GPT-2 124M, {len(seen[SPLIT][0].ids)} tokens, edge and cloud: speed"
    return [verdicts.judge(what, reference, speeds, "≥", MIN_OF_TRANSFORMERS)]


def rows(seen):
    for name, rounds in seen.items():
        columns = [[getattr(one, key) for one in rounds] for key in ("tokens_per_s", "first_ms", "further_ms")]
        cells = [verdicts.spread(values, 1) for values in columns]
        ours = name in (SPLIT, WHOLE)
        compared = [verdicts.spread(ratios(seen, other, name)) if ours else "" for other in (GENERATE, LOOP)]
        yield [name, *cells, *compared]


def render(load, threads, split_point, seen, bars):
    first = next(iter(seen.values()))
    heads = ["", "tokens/s", "ms to the first token", "ms for each further one", f"{GENERATE} ÷ it", f"{LOOP} ÷ it"]
    lines = [
        "# Generation beside transformers", "",
        f"`benches/generation`: {nodes.machine()}; load average at the beginning {load:.1f}; PyTorch "
        f"{torch.__version__}, transformers {transformers.__version__}, both on the CPU.", "",
        f"GPT-2 124M, FP32, one sequence: {PROMPT} ids of prompt, {len(first[0].ids)} new tokens, greedy, with a cache "
        "of keys and values. The weights are random, and all read the same file. All gave the same tokens, in every "
        "round.", "",
        "Cleave is two release processes and a client, tritonclient, over plain loopback without a simulated link; a "
        f"token's time is when the client has it. The cut is at {split_point}, in the middle of the blocks. "
        f"transformers is called in one process, in inference mode, eager, with {threads} threads; everything has the "
        f"same {threads} cores.", "",
        f"Medians of {len(first)} rounds in which the contenders take turns, and the least and the most. The ratios "
        "are of the same round, of the time from request to last token: above 1, Cleave is the quicker. The bar is "
        "against the quicker way to call transformers.", "",
    ]
    return "\n".join([*lines, *verdicts.table(heads, rows(seen)), "", *verdicts.bars(bars)]) + "\n"
