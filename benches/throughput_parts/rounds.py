"""What is measured, the program that asks, and the rounds in which contenders take turns."""

import json
import statistics
import subprocess
import sys
import typing

from turns import turns

# Of each contender before the first round: until models are loaded and buffers have their size.
GREETING_S = 1.0


class Cut(typing.NamedTuple):
    model: str
    split_point: int


class Load:
    """Closed-loop callers: edge-node/examples/load."""

    def __init__(self, binary):
        self.binary = binary.resolve()

    def run(self, seconds, *words):
        """What they saw: answers a second, latencies, errors by kind."""
        command = [str(self.binary), *map(str, words), "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
        seen = json.loads(done.stdout)
        if not seen["answers"]:
            sys.exit(f"{' '.join(command)}: no answer in {seconds} s; errors: {seen['errors']}")
        return seen


def take_turns(contenders, count, seconds):
    """What was seen of each contender, round by round."""
    for contender in contenders:
        contender.run(GREETING_S)
    seen = [[] for _ in contenders]
    for order in turns(range(len(contenders)), count):
        for place in order:
            seen[place].append(contenders[place].run(seconds))
    return seen


def median(seen, key):
    return statistics.median(one[key] for one in seen)


def ratios(seen, others, key):
    """Of the same rounds."""
    return [one[key] / other[key] for one, other in zip(seen, others)]


def errors(*all_seen):
    """How often each kind of failure was seen."""
    counts = {}
    for seen in all_seen:
        for one in seen:
            for kind, count in one["errors"].items():
                counts[kind] = counts.get(kind, 0) + count
    return counts
